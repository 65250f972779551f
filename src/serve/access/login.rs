//! Routes of login and logout, of the request's principal, and of the audit log.

use std::time::{Duration, Instant};

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Json, response::AppendHeaders};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::serve::access::accounts::MAX_NAME;
use crate::serve::access::audit::{AuditAction, AuditEntry, AuditResult};
use crate::serve::access::client::Client;
use crate::serve::access::control::AccessControl;
use crate::serve::access::cookies;
use crate::serve::access::password::MAX_BYTES;
use crate::serve::access::principal::{Principal, PrincipalKind};
use crate::serve::access::requirement::{Requirement, role};
use crate::serve::access::role::Role;
use crate::serve::access::sessions::hash;
use crate::serve::json_body::JsonBody;
use crate::serve::operation::Operation;
use crate::serve::pages;
use crate::serve::problem::Problem;
use crate::serve::query::QueryOf;
use crate::serve::routes::Routes;

/// The routes of session and audit log.
pub fn routes() -> Routes {
    let (viewer, admin) = (role(Role::Viewer), role(Role::Admin));
    Routes::default()
        .post("/api/v1/session", Requirement::OwnOrigin, log_in)
        .documented(
            Operation::new(
                "session",
                "Logs in; the answer sets the cookie of the session",
            )
            .body::<Login>()
            .answers::<SessionView>()
            .problem(
                StatusCode::UNAUTHORIZED,
                "login-failed",
                "wrong name or password",
            )
            .problem(StatusCode::FORBIDDEN, "origin", "a page of another origin")
            .problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-field",
                "a field is wrong",
            )
            .problem(
                StatusCode::TOO_MANY_REQUESTS,
                "login-limit",
                "too many failed logins",
            )
            .problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "login-busy",
                "too many at a time",
            ),
        )
        .get("/api/v1/session", viewer, whoami)
        .documented(Operation::new("session", "Who one is").answers::<SessionView>())
        .delete("/api/v1/session", viewer, log_out)
        .documented(Operation::new("session", "Logs out").answers_empty(StatusCode::NO_CONTENT))
        .get("/api/v1/audit", admin, audit)
        .documented(
            Operation::new("audit", "The newest entries of the audit log, newest first")
                .query::<AuditQuery>()
                .answers::<AuditPage>()
                .problem(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid-field",
                    "the limit",
                ),
        )
}

/// The body of a login.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    name: String,
    password: Secret,
}

/// The principal of a request, and the token that requests with a cookie need to change something.
#[derive(Debug, Serialize, JsonSchema)]
struct SessionView {
    name: std::sync::Arc<str>,
    role: Role,
    kind: PrincipalKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<std::sync::Arc<str>>,
}

impl SessionView {
    fn of(principal: &Principal) -> Json<Self> {
        Json(SessionView {
            name: principal.name.clone(),
            role: principal.role,
            kind: principal.kind,
            csrf_token: principal.csrf_token.clone(),
        })
    }
}

/// `GET /login`: the page on which users log in; the main page if there are neither
/// users nor tokens.
pub async fn page(State(access): State<AccessControl>) -> Response {
    if access.is_open() {
        Redirect::to(&access.base_path().page()).into_response()
    } else {
        Html(pages::LOGIN).into_response()
    }
}

/// `GET /api/v1/session`: the principal of the request.
pub async fn whoami(Extension(principal): Extension<Principal>) -> impl IntoResponse {
    SessionView::of(&principal)
}

/// `POST /api/v1/session`: a login. The answer sets the cookie of the session.
///
/// # Errors
/// 401 for an unknown name or a wrong password, after the same time; 422 for a name or password of
/// impossible length; 429 after too many failed logins; 503 while too many are being checked.
pub async fn log_in(
    State(access): State<AccessControl>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    JsonBody(login): JsonBody<Login>,
) -> Result<Response, Problem> {
    let Login { name, password } = login;
    if name.is_empty() || name.chars().count() > MAX_NAME {
        return Err(Problem::field(
            "name",
            format!("a name has 1 to {MAX_NAME} characters"),
        ));
    }
    if password.expose().is_empty() || password.expose().len() > MAX_BYTES {
        let detail = format!("a password has 1 to {MAX_BYTES} bytes");
        return Err(Problem::field("password", detail));
    }
    let user = access.accounts().user(&name);
    // Of unknown names nothing is logged: people type passwords into the wrong field.
    let entry = AuditEntry::new(AuditAction::Login).from(&client);
    let entry = entry.on(if user.is_some() {
        &name
    } else {
        "an unknown name"
    });
    let refused = |reason: &str| {
        let entry = entry.clone().ended(AuditResult::Refused, reason);
        access.audit().record(entry);
    };
    if let Err(after) = access.limits().take(client.address, &name, Instant::now()) {
        refused("too many failed logins");
        let detail = "too many failed logins from this address or with this name; wait and try \
                      again";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "login-limit", detail);
        return Err(problem.with_retry_after(after));
    }
    let phc = user.as_ref().map(|user| user.password.clone());
    let verified = access.passwords().verify(password, phc).await;
    let verified = verified.map_err(|_| {
        // The password was not checked, so this is no failed login.
        access.limits().give_back(client.address, &name);
        refused("too many logins at the same time");
        let detail = "too many logins at the same time; try again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "login-busy", detail)
            .with_retry_after(Duration::from_secs(1))
    })?;
    let Some(user) = user.filter(|_| verified) else {
        refused("unknown name or wrong password");
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "login-failed",
            "the name or the password is wrong",
        ));
    };
    access.limits().give_back(client.address, &name);
    if let Some(before) = access.session_id(&headers, &client) {
        access.sessions().end(before);
    }
    let id = access
        .sessions()
        .start(&name, hash(&user.password), Instant::now())
        .map_err(|e| Problem::internal("start a session", e))?;
    let principal = Principal {
        name: name.as_str().into(),
        role: user.role,
        kind: PrincipalKind::User,
        csrf_token: Some(access.csrf_token(id.expose())),
        ..Principal::local()
    };
    access.audit().record(entry.by(&principal));
    let cookie = session_cookie(&access, &client, id.expose());
    Ok((
        AppendHeaders(cookie.map(|c| (header::SET_COOKIE, c))),
        SessionView::of(&principal),
    )
        .into_response())
}

/// `DELETE /api/v1/session`: a logout. It ends the session and its streams, and makes the browser
/// forget its cookies.
pub async fn log_out(
    State(access): State<AccessControl>,
    Extension(client): Extension<Client>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
) -> Response {
    if let Some(id) = access.session_id(&headers, &client) {
        access.sessions().end(id);
    }
    access.audit().record(
        AuditEntry::new(AuditAction::Logout)
            .by(&principal)
            .from(&client),
    );
    let token = cookies::set(cookies::TOKEN, "", client.https, access.base_path());
    let all = session_cookie(&access, &client, "")
        .into_iter()
        .chain(token);
    let all: Vec<_> = all.map(|c| (header::SET_COOKIE, c)).collect();
    (StatusCode::NO_CONTENT, AppendHeaders(all)).into_response()
}

fn session_cookie(access: &AccessControl, client: &Client, value: &str) -> Option<HeaderValue> {
    let name = cookies::session_name(client.https, access.base_path());
    cookies::set(&name, value, client.https, access.base_path())
}

/// The query of the audit log.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Largest number of entries, 1 to 1000; 100 if absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// Only entries before the one with this id.
    before: Option<uuid::Uuid>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AuditPage {
    entries: Vec<serde_json::Map<String, serde_json::Value>>,
    /// The `before` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// `GET /api/v1/audit`: the newest entries of the audit log, newest first.
///
/// # Errors
/// 400 for an invalid query, 422 for an invalid limit, 500 when the log cannot be read.
pub async fn audit(
    State(access): State<AccessControl>,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::field("limit", "it must be from 1 to 1000"));
    }
    let before = query.before.map(|id| id.to_string());
    let read = access.audit().newest(limit, before).await;
    let entries = read.map_err(|e| Problem::internal("read the audit log", e))?;
    let object = |entry| match entry {
        serde_json::Value::Object(entry) => Some(entry),
        _ => None,
    };
    let entries: Vec<_> = entries.into_iter().filter_map(object).collect();
    let last = entries.last().and_then(|e| e.get("id")?.as_str());
    let next = last.filter(|_| entries.len() == limit).map(str::to_string);
    Ok(Json(AuditPage { entries, next }).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::access::accounts_file::AccountsFile;
    use crate::serve::config::ServeConfig;

    /// Regression: a login for which there was no room counted as a failed one, and was not in the
    /// audit log.
    #[tokio::test]
    async fn a_login_while_too_many_are_checked_is_logged_and_does_not_count() {
        let dir = tempfile::tempdir().expect("a folder");
        let password = Secret::new("correct horse");
        AccountsFile::in_folder(dir.path())
            .update(|a| a.add_user("anna", Role::Viewer, &password, crate::clock::now()))
            .expect("written");
        let config = ServeConfig::default().with_state_dir(Some(dir.path().into()));
        let address = "127.0.0.1:0".parse().expect("an address");
        let access = AccessControl::open(&config, address, None).expect("valid");
        let log_in = async || {
            let login = Login {
                name: "anna".into(),
                password: password.clone(),
            };
            let client = Extension(Client::default());
            let answer = log_in(
                State(access.clone()),
                client,
                HeaderMap::new(),
                JsonBody(login),
            );
            let answer = answer.await.map(|response| response.status());
            answer.unwrap_or_else(|problem| problem.status())
        };
        const ATTEMPTS: usize = 30; // more than failed ones are allowed
        let all = access.passwords().occupy().await;
        for _ in 0..ATTEMPTS {
            assert_eq!(log_in().await, StatusCode::SERVICE_UNAVAILABLE);
        }
        drop(all);
        assert_eq!(log_in().await, StatusCode::OK);
        access.audit().flush(Duration::from_secs(60)).await;
        let entries = access.audit().newest(100, None).await.expect("readable");
        let results: Vec<_> = entries.iter().map(|e| e["result"].as_str()).collect();
        assert_eq!(results.len(), ATTEMPTS + 1);
        assert!(results[1..].iter().all(|r| *r == Some("refused")));
    }
}
