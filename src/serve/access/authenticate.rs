//! The two middlewares of the web server: [`authenticate`] determines who sends a request,
//! [`require`] refuses requests that lack what their route requires.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use subtle::ConstantTimeEq as _;

use crate::serve::access::client::Peer;
use crate::serve::access::control::AccessControl;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::Requirement;
use crate::serve::access::role::Role;
use crate::serve::access::{cookies, origin};
use crate::serve::problem::Problem;

/// Header of the CSRF token.
const CSRF_HEADER: &str = "x-csrf-token";

/// What [`authenticate`] has found out: an extension of every request.
#[derive(Clone)]
struct Authentication {
    principal: Option<Principal>,
    /// Whether a page of another origin, or of another host name, caused the request.
    foreign: bool,
    /// Whether a page of this origin sent the request.
    own: bool,
    /// Where browsers log in; None if there are no users.
    login: Option<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Foreign,
    NoPrincipal,
    Role(Role),
    Csrf,
}

/// Middleware of all routes: determines the client and the principal. It refuses nothing.
pub async fn authenticate(
    State(access): State<AccessControl>,
    mut request: Request,
    next: Next,
) -> Response {
    // The extension is missing only in tests of handlers.
    let local = Peer {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tls: false,
    };
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(local);
    let (headers, query) = (request.headers(), request.uri().query());
    let client = access.client(peer, headers);
    let safe = is_safe(request.method());
    // Only requests that change nothing may have a token in their address: logs contain addresses.
    let in_query = cookies::token_in_query(query).filter(|_| safe);
    let principal = access.principal(headers, in_query.as_deref(), &client);
    let is_page = request.uri().path() == access.base_path().page();
    if let Some(token) = in_query.filter(|_| is_page && request.method() == Method::GET) {
        let host_is_ours = !access.is_foreign(headers, &client);
        if let Some(response) = to_cookie(&access, &token, client.https).filter(|_| host_is_ours) {
            return response;
        }
    }
    let authentication = Authentication {
        foreign: access.is_foreign(headers, &client),
        own: origin::is_own(headers, &client.host),
        login: access
            .has_users()
            .then(|| format!("{}login", access.base_path().page())),
        principal: principal.clone(),
    };
    let extensions = request.extensions_mut();
    extensions.insert(client.clone());
    extensions.insert(authentication);
    if let Some(principal) = principal {
        extensions.insert(principal);
    }
    let mut response = next.run(request).await;
    response.extensions_mut().insert(client);
    response
}

/// Browsers show and store the page's address, so a valid token is moved from it to a cookie.
fn to_cookie(access: &AccessControl, token: &str, https: bool) -> Option<Response> {
    access.token(token)?;
    let cookie = cookies::set(cookies::TOKEN, token, https, access.base_path())?;
    let page = Redirect::to(&access.base_path().page());
    Some(([(header::SET_COOKIE, cookie)], page).into_response())
}

/// Middleware of one route: refuses requests that lack what it requires.
pub async fn require(
    State(requirement): State<Requirement>,
    request: Request,
    next: Next,
) -> Response {
    let Some(found) = request.extensions().get::<Authentication>() else {
        // A route outside of `Routes`: nobody may use it.
        return refused(Refusal::NoPrincipal, None);
    };
    match check(requirement, found, request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let html = HeaderValue::from_static("text/html");
            let accepts = request.headers().get(header::ACCEPT).unwrap_or(&html);
            let browser = request.headers().contains_key(header::ACCEPT)
                && request.method() == Method::GET
                && accepts.to_str().is_ok_and(|a| a.contains("text/html"));
            let login = found.login.as_deref().filter(|_| browser);
            refused(refusal, login)
        }
    }
}

fn check(
    requirement: Requirement,
    found: &Authentication,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if requirement == Requirement::Nothing {
        return Ok(());
    }
    if found.foreign {
        return Err(Refusal::Foreign);
    }
    let Requirement::Role(least) = requirement else {
        return Ok(());
    };
    let principal = found.principal.as_ref().ok_or(Refusal::NoPrincipal)?;
    if principal.role < least {
        return Err(Refusal::Role(least));
    }
    match &principal.csrf_token {
        Some(token) if !is_safe(method) => {
            let given = headers
                .get(CSRF_HEADER)
                .map_or(&[][..], HeaderValue::as_bytes);
            let same: bool = given.ct_eq(token.as_bytes()).into();
            if same && found.own {
                Ok(())
            } else {
                Err(Refusal::Csrf)
            }
        }
        _ => Ok(()),
    }
}

/// Whether requests of this method change nothing.
fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// The answer to a refused request. `login`: where to send a browser that has no session.
fn refused(refusal: Refusal, login: Option<&str>) -> Response {
    let problem = match (refusal, login) {
        (Refusal::NoPrincipal, Some(login)) => return Redirect::to(login).into_response(),
        (Refusal::NoPrincipal, None) => Problem::new(
            StatusCode::UNAUTHORIZED,
            "login",
            "log in, or send a token that is valid: `Authorization: Bearer …`, or open /?token=… \
             once in a browser",
        ),
        (Refusal::Foreign, _) => Problem::new(
            StatusCode::FORBIDDEN,
            "origin",
            "the request has another host name or origin; to reach twintrack under names other \
             than localhost, add users (`twintrack user add`) or set serve.token",
        ),
        (Refusal::Role(least), _) => Problem::new(
            StatusCode::FORBIDDEN,
            "role",
            format!("this needs the role {least}"),
        ),
        (Refusal::Csrf, _) => Problem::new(
            StatusCode::FORBIDDEN,
            "csrf",
            "a request with a cookie that changes something needs the header X-CSRF-Token with \
             the value from /api/v1/session, and must come from a page of this server",
        ),
    };
    problem.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::access::principal::PrincipalKind;

    fn found(role: Option<Role>, csrf: Option<&str>) -> Authentication {
        let principal = role.map(|role| Principal {
            role,
            kind: PrincipalKind::User,
            csrf_token: csrf.map(Into::into),
            ..Principal::local()
        });
        Authentication {
            principal,
            foreign: false,
            own: true,
            login: None,
        }
    }

    #[test]
    fn each_requirement_refuses_what_lacks_it() {
        let none = HeaderMap::new();
        let get =
            |requirement, found: &Authentication| check(requirement, found, &Method::GET, &none);
        let nobody = found(None, None);
        assert_eq!(get(Requirement::Nothing, &nobody), Ok(()));
        assert_eq!(get(Requirement::OwnOrigin, &nobody), Ok(()));
        for least in Role::ALL {
            let requirement = Requirement::Role(least);
            assert_eq!(get(requirement, &nobody), Err(Refusal::NoPrincipal));
            for role in Role::ALL {
                let expected = if role >= least {
                    Ok(())
                } else {
                    Err(Refusal::Role(least))
                };
                assert_eq!(get(requirement, &found(Some(role), None)), expected);
            }
        }
        let foreign = Authentication {
            foreign: true,
            ..found(Some(Role::Admin), None)
        };
        assert_eq!(get(Requirement::Nothing, &foreign), Ok(()));
        assert_eq!(get(Requirement::OwnOrigin, &foreign), Err(Refusal::Foreign));
        let viewer = Requirement::Role(Role::Viewer);
        assert_eq!(get(viewer, &foreign), Err(Refusal::Foreign));
    }

    #[test]
    fn a_cookie_changes_something_only_with_the_csrf_token_from_an_own_page() {
        let with = |token: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(token) = token {
                headers.insert(CSRF_HEADER, HeaderValue::from_str(token).expect("a value"));
            }
            headers
        };
        let admin = Requirement::Role(Role::Admin);
        let session = found(Some(Role::Admin), Some("right"));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let of = |found: &Authentication, token| check(admin, found, &method, &with(token));
            assert_eq!(of(&session, Some("right")), Ok(()), "{method}");
            assert_eq!(of(&session, None), Err(Refusal::Csrf), "{method}");
            assert_eq!(of(&session, Some("")), Err(Refusal::Csrf), "{method}");
            assert_eq!(of(&session, Some("wrong")), Err(Refusal::Csrf), "{method}");
            let unknown = Authentication {
                own: false,
                ..session.clone()
            };
            assert_eq!(of(&unknown, Some("right")), Err(Refusal::Csrf), "{method}");
            // A bearer token is not sent by browsers on their own.
            assert_eq!(
                of(&found(Some(Role::Admin), None), None),
                Ok(()),
                "{method}"
            );
        }
        assert_eq!(check(admin, &session, &Method::GET, &with(None)), Ok(()));
    }
}
