//! Scripts and styles of the pages, compiled in: `GET /assets/{file}`. Their names stay the same
//! from version to version, so browsers ask each time, and have the answer 304 while nothing has
//! changed.

use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::serve::conditional::{entity_tag, has_tag};
use crate::serve::problem::Problem;
use crate::serve::query::PathOf;

/// A file of `web/dist/assets`, as it is and compressed.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $content_type:literal) => {
        Asset {
            name: $name,
            content_type: $content_type,
            plain: include_bytes!(concat!("../../web/dist/assets/", $name)),
            gzip: include_bytes!(concat!("../../web/dist/assets/", $name, ".gz")),
        }
    };
}

/// All files of `web/dist/assets`; a test compares them with the folder.
static ASSETS: [Asset; 3] = [
    asset!("app.js", "text/javascript; charset=utf-8"),
    asset!("login.js", "text/javascript; charset=utf-8"),
    asset!("styles.css", "text/css; charset=utf-8"),
];

impl Asset {
    /// Entity tags of the file and of its compressed form.
    fn tags(&self) -> &'static (String, String) {
        static TAGS: OnceLock<Vec<(String, String)>> = OnceLock::new();
        let tags = TAGS.get_or_init(|| {
            let tags = |a: &Asset| (entity_tag(a.plain), entity_tag(a.gzip));
            ASSETS.iter().map(tags).collect()
        });
        let index = ASSETS.iter().position(|a| std::ptr::eq(a, self));
        &tags[index.unwrap_or_default()]
    }
}

/// The file in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AssetPath {
    /// Name of the file.
    file: String,
}

/// Handler of the route. The files contain nothing confidential; the login page needs them.
///
/// # Errors
/// 404 for another name.
pub async fn asset(
    headers: HeaderMap,
    PathOf(path): PathOf<AssetPath>,
) -> Result<Response, Problem> {
    let found = ASSETS.iter().find(|a| a.name == path.file);
    let asset = found.ok_or_else(|| Problem::not_found("there is no such file"))?;
    let (plain, gzip) = asset.tags();
    let zipped = accepts_gzip(&headers);
    let tag = if zipped { gzip } else { plain };
    let tag_value =
        HeaderValue::from_str(tag).map_err(|e| Problem::internal("state the entity tag", e))?;
    let common = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (header::ETAG, tag_value),
    ];
    if has_tag(&headers, header::IF_NONE_MATCH, tag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let body = if zipped { asset.gzip } else { asset.plain };
    let mut response = (common, [(header::CONTENT_TYPE, asset.content_type)], body).into_response();
    if zipped {
        let encoding = HeaderValue::from_static("gzip");
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, encoding);
    }
    Ok(response)
}

/// Whether the client accepts gzip (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT_ENCODING);
    let mut items = all
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','));
    items.any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let named = parts.next().is_some_and(|n| n.eq_ignore_ascii_case("gzip"));
        let refused = parts.any(|p| {
            let weight = p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
            weight == Some(0.0)
        });
        named && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_compiled_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/web/dist/assets");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let mut known: Vec<String> = ASSETS
            .iter()
            .flat_map(|a| [a.name.to_string(), format!("{}.gz", a.name)])
            .collect();
        there.sort();
        known.sort();
        assert_eq!(there, known);
        // Each tag is that of its own file.
        for asset in &ASSETS {
            assert_eq!(asset.tags().0, entity_tag(asset.plain), "{}", asset.name);
        }
    }

    #[test]
    fn gzip_is_sent_to_those_who_accept_it() {
        for (value, accepted) in [
            ("gzip, deflate, br", true),
            ("br;q=1, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("x-gzip", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepts_gzip(&headers), accepted, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
