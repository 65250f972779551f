//! The cookies of browsers: sessions, and tokens given once in the page's address.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::serve::access::base_path::BasePath;

/// Cookie of a session. Over https its name has a prefix: browsers accept `__Secure-` over https
/// only, and `__Host-` also from this host only.
const SESSION: &str = "twintrack_session";
/// Cookie with the token, after the page has been opened with `?token=…`.
pub(super) const TOKEN: &str = "twintrack_token";

/// Name of the cookie of sessions.
pub(super) fn session_name(https: bool, base: &BasePath) -> String {
    match (https, base.cookies()) {
        (true, "/") => format!("__Host-{SESSION}"),
        (true, _) => format!("__Secure-{SESSION}"),
        (false, _) => SESSION.into(),
    }
}

/// The value of the cookie `name`; the first, if there are several.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The token of a query such as `cameras=a&token=…`.
pub(super) fn token_in_query(query: Option<&str>) -> Option<String> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "token")
        .map(|(_, value)| value.into_owned())
}

/// The header that sets a cookie. The browser forgets the cookie when the browser is closed, or at
/// once if `value` is empty. None if the value has characters that headers cannot have.
pub(super) fn set(name: &str, value: &str, https: bool, base: &BasePath) -> Option<HeaderValue> {
    let secure = if https { "; Secure" } else { "" };
    let age = if value.is_empty() { "; Max-Age=0" } else { "" };
    let path = base.cookies();
    if value.contains([';', ' ']) {
        return None;
    }
    HeaderValue::from_str(&format!(
        "{name}={value}; HttpOnly; SameSite=Strict; Path={path}{secure}{age}"
    ))
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_attributes_depend_on_https_and_base_path() {
        let (root, below) = (
            BasePath::default(),
            BasePath::parse("/twintrack").expect("valid"),
        );
        assert_eq!(session_name(true, &root), "__Host-twintrack_session");
        assert_eq!(session_name(true, &below), "__Secure-twintrack_session");
        assert_eq!(session_name(false, &root), "twintrack_session");
        let cookie = |value, https, base| {
            let header = set("a", value, https, base)?;
            header.to_str().ok().map(str::to_string)
        };
        assert_eq!(
            cookie("b", false, &root).as_deref(),
            Some("a=b; HttpOnly; SameSite=Strict; Path=/")
        );
        assert_eq!(
            cookie("", true, &below).as_deref(),
            Some("a=; HttpOnly; SameSite=Strict; Path=/twintrack; Secure; Max-Age=0")
        );
        assert_eq!(cookie("b; Domain=evil.example", false, &root), None);
        assert_eq!(cookie("b\r\nX: y", false, &root), None);
    }

    #[test]
    fn a_cookie_is_found_by_its_name() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("x=1; a=2;a=3"));
        headers.append("cookie", HeaderValue::from_static("b=4"));
        assert_eq!(find(&headers, "a"), Some("2"));
        assert_eq!(find(&headers, "b"), Some("4"));
        assert_eq!(find(&headers, "c"), None);
    }
}
