//! The OpenAPI 3.1 document of the HTTP interface, made from the table of routes and the types of
//! their parameters, bodies and answers.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::serve::access::requirement::Requirement;
use crate::serve::access::role::Role;
use crate::serve::operation::{Content, Operation};
use crate::serve::problem::Problem;
use crate::serve::routes::Route;
use crate::serve::schema::tidy;

/// Media type of problems.
const PROBLEM: &str = "application/problem+json";

/// The document for these routes; routes without an operation, such as pages, are left out. `base`
/// is the base path, empty if there is none.
pub fn document(routes: &[Route], base: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        let Some(operation) = &route.operation else {
            continue;
        };
        let method = route.method.as_str().to_lowercase();
        let described = describe(route, operation, &mut generator);
        paths
            .entry(route.path)
            .or_default()
            .insert(method, described);
    }
    let problem = generator.subschema_for::<Problem>();
    let mut schemas = generator.take_definitions(true);
    schemas.entry("Problem").or_insert(problem.into());
    let server = if base.is_empty() { "/" } else { base };
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "twintrack",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Cameras, tracks, zones, statistics, search and identities of a \
                            running twintrack. Errors are problems of RFC 9457.",
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer",
                          "description": "A token of `twintrack token add`"},
                "session": {"type": "apiKey", "in": "cookie", "name": "twintrack_session",
                            "description": "The cookie of a login; requests that change \
                                            something also need the header X-CSRF-Token"},
            },
        },
    });
    tidy(&mut document);
    document
}

fn describe(route: &Route, operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = path_parameters(route.path, operation, generator);
    if let Some(query) = operation.query {
        let schema = query(generator).to_value();
        parameters.extend(members(&schema).map(|(name, schema, required)| {
            json!({"name": name, "in": "query", "required": required, "schema": schema,
                   "description": schema["description"]})
        }));
    }
    let mut described = json!({
        "summary": operation.summary,
        "operationId": operation_id(route),
        "tags": [operation.tag],
        "parameters": parameters,
        "responses": responses(route, operation, generator),
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({"required": true, "content": content(body, generator)});
    }
    match route.requirement {
        Requirement::Role(role) => {
            described["security"] = json!([{"token": []}, {"session": []}]);
            described["x-role"] = role.name().into();
            described["description"] = role_sentence(role).into();
        }
        Requirement::Nothing | Requirement::OwnOrigin => described["security"] = json!([]),
    }
    described
}

fn role_sentence(role: Role) -> String {
    format!("Requires the role {role}.")
}

/// Such as `get_tracks_run_camera_track`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1");
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    format!(
        "{}_{}",
        route.method.as_str().to_lowercase(),
        words.join("_")
    )
}

fn path_parameters(
    path: &str,
    operation: &Operation,
    generator: &mut SchemaGenerator,
) -> Vec<Value> {
    let schema = operation.path.map(|of| of(generator).to_value());
    let names = path.split('{').skip(1).filter_map(|s| s.split('}').next());
    let parameter = |name: &str| {
        let of = schema.as_ref().map(|s| s["properties"][name].clone());
        let of = of.unwrap_or_else(|| json!({"type": "string", "minLength": 1}));
        json!({"name": name, "in": "path", "required": true, "description": of["description"],
               "schema": of})
    };
    names.map(parameter).collect()
}

/// The members of an object's schema: name, schema, whether required.
fn members(schema: &Value) -> impl Iterator<Item = (&String, &Value, bool)> {
    let required = |name: &str| {
        let list = schema["required"].as_array();
        list.is_some_and(|list| list.iter().any(|r| r == name))
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.map(move |(name, of)| (name, of, required(name)))
}

fn content(content: &Content, generator: &mut SchemaGenerator) -> Value {
    match content {
        Content::Json(schema) => json!({"application/json": {"schema": schema(generator)}}),
        Content::Bytes(types) => {
            let of = |media: &&str| (media.to_string(), json!({"schema": {}}));
            types.iter().map(of).collect::<Map<_, _>>().into()
        }
        Content::Empty => json!({}),
    }
}

fn responses(route: &Route, operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut all = Map::new();
    for (status, of) in &operation.answers {
        let mut answer = json!({"description": status.canonical_reason().unwrap_or("answer")});
        if !matches!(of, Content::Empty) {
            answer["content"] = content(of, generator);
        }
        all.insert(status.as_str().into(), answer);
    }
    let json_answer = |(_, of): &(StatusCode, Content)| matches!(of, Content::Json(_));
    if route.method == Method::GET && operation.answers.iter().any(json_answer) {
        let text = "It has not changed since the answer whose ETag is in If-None-Match";
        all.insert("304".into(), json!({"description": text}));
    }
    let mut reasons: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    let mut problem = |status: StatusCode, text: String| {
        reasons.entry(status.as_u16()).or_default().push(text);
    };
    for (status, code, reason) in &operation.problems {
        problem(*status, format!("`{code}`: {reason}"));
    }
    if operation.query.is_some() {
        let text = "`invalid-query`: a parameter is unknown or of another type";
        problem(StatusCode::BAD_REQUEST, text.into());
    }
    if let Requirement::Role(_) = route.requirement {
        let text = "`login`: no valid session or token";
        problem(StatusCode::UNAUTHORIZED, text.into());
        let text = "`role`, `origin`, `csrf`: not allowed";
        problem(StatusCode::FORBIDDEN, text.into());
    }
    if operation.body.is_some() {
        let text = "`malformed-json`: the body is not valid";
        problem(StatusCode::BAD_REQUEST, text.into());
        problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "`body-size`: too large".into(),
        );
        let text = "`media-type`: another type of body";
        problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text.into());
    }
    for (status, texts) in reasons {
        let schema = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
        let answer = json!({"description": texts.join("; "), "content": {PROBLEM: schema}});
        all.insert(status.to_string(), answer);
    }
    all.into()
}
