//! What the OpenAPI document says about a route.

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Makes the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>() -> SchemaOf {
    |generator| generator.subschema_for::<T>()
}

/// The schema of a type in place, without a reference to it.
fn inline<T: JsonSchema>() -> SchemaOf {
    T::json_schema
}

/// Content of a body.
#[derive(Debug, Clone)]
pub enum Content {
    /// JSON of a type.
    Json(SchemaOf),
    /// Bytes of one of these media types.
    Bytes(&'static [&'static str]),
    /// No body.
    Empty,
}

/// What the OpenAPI document says about a route.
#[derive(Debug, Clone)]
pub struct Operation {
    /// One sentence: what the route does.
    pub summary: &'static str,
    /// Group of routes, such as `tracks`.
    pub tag: &'static str,
    /// Type of the parameters in the path.
    pub path: Option<SchemaOf>,
    /// Type of the query.
    pub query: Option<SchemaOf>,
    /// Body of the request.
    pub body: Option<Content>,
    /// Answers other than problems.
    pub answers: Vec<(StatusCode, Content)>,
    /// Problems of this route: status, code, reason. Those that all routes share are added.
    pub problems: Vec<(StatusCode, &'static str, &'static str)>,
}

impl Operation {
    /// An operation without parameters and answers.
    pub fn new(tag: &'static str, summary: &'static str) -> Self {
        Operation {
            summary,
            tag,
            path: None,
            query: None,
            body: None,
            answers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// States the type of the parameters in the path.
    pub fn path<T: JsonSchema>(mut self) -> Self {
        self.path = Some(inline::<T>());
        self
    }

    /// States the type of the query.
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(inline::<T>());
        self
    }

    /// States the type of the JSON body.
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(Content::Json(schema_of::<T>()));
        self
    }

    /// States the media types of a body that is not JSON.
    pub fn body_of(mut self, types: &'static [&'static str]) -> Self {
        self.body = Some(Content::Bytes(types));
        self
    }

    /// States the type of the JSON with which a request is answered with 200.
    pub fn answers<T: JsonSchema>(self) -> Self {
        self.answers_with::<T>(StatusCode::OK)
    }

    /// As [`Operation::answers`], with another status.
    pub fn answers_with<T: JsonSchema>(mut self, status: StatusCode) -> Self {
        self.answers.push((status, Content::Json(schema_of::<T>())));
        self
    }

    /// States the media types of an answer with 200 that is not JSON.
    pub fn answers_of(mut self, types: &'static [&'static str]) -> Self {
        self.answers.push((StatusCode::OK, Content::Bytes(types)));
        self
    }

    /// States an answer without a body.
    pub fn answers_empty(mut self, status: StatusCode) -> Self {
        self.answers.push((status, Content::Empty));
        self
    }

    /// States a problem with its code and reason.
    pub fn problem(mut self, status: StatusCode, code: &'static str, reason: &'static str) -> Self {
        self.problems.push((status, code, reason));
        self
    }
}
