//! Bodies of requests, with errors that name the invalid field.

use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::serve::problem::Problem;

/// Largest body, bytes.
const MAX_BODY: usize = 64 << 10;
/// Time within which the whole body must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// A JSON body of at most 64 KiB. The answer to any other body is 400, 408, 413, 415 or 422.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        // Pages of other origins cannot send this type without the browser asking first.
        let essence = media_type(&request);
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media-type",
                "the body must be JSON: send `Content-Type: application/json`",
            ));
        }
        let bytes = read_body(request, MAX_BODY).await?;
        parse(&bytes).map(JsonBody)
    }
}

/// A picture, JPEG or PNG, of at most 8 MiB. The answer to any other body is 408, 413 or 415. It is
/// 503 while eight other pictures are worked on, so that their memory is bounded.
#[derive(Debug)]
pub struct PictureBody {
    /// The encoded picture.
    pub bytes: Bytes,
    _permit: SemaphorePermit<'static>,
}

/// Most pictures that are received and worked on at a time.
const MAX_PICTURES: usize = 8;
static PICTURES: Semaphore = Semaphore::const_new(MAX_PICTURES);

/// Media types of a [`PictureBody`].
pub const PICTURE_TYPES: &[&str] = &["image/jpeg", "image/png"];

/// Largest picture, bytes.
const MAX_PICTURE: usize = 8 << 20;

impl<S: Send + Sync> FromRequest<S> for PictureBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let essence = media_type(&request).to_ascii_lowercase();
        if !PICTURE_TYPES.contains(&essence.as_str()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media-type",
                "the body must be a picture: send `Content-Type: image/jpeg` or `image/png`",
            ));
        }
        let permit = PICTURES.try_acquire().map_err(|_| {
            let detail = "too many pictures at the same time; try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "pictures-busy", detail)
                .with_retry_after(Duration::from_secs(1))
        })?;
        Ok(PictureBody {
            bytes: read_body(request, MAX_PICTURE).await?,
            _permit: permit,
        })
    }
}

/// The media type of a request's body, without parameters; empty if it is not stated.
fn media_type(request: &Request) -> &str {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// 408 if it does not arrive in time, 413 if it is too large.
async fn read_body(request: Request, most: usize) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), most));
    let bytes = read.await.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow-body",
            format!(
                "the body did not arrive within {} s",
                BODY_TIMEOUT.as_secs()
            ),
        )
    })?;
    bytes.map_err(|_| {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-size",
            format!("the body cannot be read, or has more than {most} bytes"),
        )
    })
}

/// Parses a JSON body.
///
/// # Errors
/// 400 if it is not JSON, 422 if a field is missing, unknown or of another type.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let field = (path != ".").then_some(path);
        let error = e.into_inner();
        // A list that is too long ends with an error of syntax, but the body is JSON.
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        if error.is_data() || is_json() {
            let detail = without_position(&error.to_string());
            let unknown = detail.split('`').nth(1).map(str::to_string);
            let field = match (field, detail.contains(" field `")) {
                (Some(field), true) if !unknown.as_ref().is_some_and(|u| field.ends_with(u)) => {
                    unknown.map(|name| format!("{field}.{name}"))
                }
                (None, true) => unknown,
                (field, _) => field,
            };
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", detail)
                .with_field(field)
        } else {
            not_json(&error)
        }
    })?;
    json.end().map_err(|e| not_json(&e))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "malformed-json",
        format!("the body is not valid JSON: {error}"),
    )
}

/// serde_json's message without line and column, which mean nothing for a missing field.
fn without_position(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_string()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Zone {
        name: String,
        points: Vec<[f32; 2]>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Zones {
        zones: Vec<Zone>,
    }

    /// Status, code and field of the problem of a body.
    fn problem(text: &str) -> (u16, String, String) {
        let problem = parse::<Zones>(text.as_bytes()).expect_err("invalid");
        let value = serde_json::to_value(&problem).expect("serialises");
        let of = |key: &str| value[key].as_str().unwrap_or_default().to_string();
        (problem.status().as_u16(), of("code"), of("field"))
    }

    #[test]
    fn an_invalid_body_is_rejected_with_the_field() {
        let zones = parse::<Zones>(br#"{"zones": [{"name": "a", "points": [[1, 2]]}]}"#);
        let zones = zones.expect("valid").zones;
        assert_eq!((zones[0].name.as_str(), zones[0].points.len()), ("a", 1));
        let field = |text| {
            let (status, code, field) = problem(text);
            assert_eq!((status, code.as_str()), (422, "invalid-field"), "{text}");
            field
        };
        assert_eq!(field("{}"), "zones");
        assert_eq!(field(r#"{"zones": [], "more": 1}"#), "more");
        assert_eq!(field(r#"{"zones": [{"points": []}]}"#), "zones[0].name");
        assert_eq!(
            field(r#"{"zones": [{"name": 3, "points": []}]}"#),
            "zones[0].name"
        );
        let deep = r#"{"zones": [{"name": "a", "points": [[1, 2], [3, "x"]]}]}"#;
        assert_eq!(field(deep), "zones[0].points[1][1]");
        let long = r#"{"zones": [{"name": "a", "points": [[1, 2, 3]]}]}"#;
        assert_eq!(field(long), "zones[0].points[0]");
        for text in ["", "{", "nonsense", "{\"zones\": []} and more", "\u{0}"] {
            let (status, code, _) = problem(text);
            assert_eq!((status, code.as_str()), (400, "malformed-json"), "{text:?}");
        }
    }

    #[tokio::test]
    async fn pictures_are_worked_on_a_few_at_a_time() {
        let picture = async || {
            let request = Request::builder().header("content-type", "image/png");
            let request = request.body("picture".into()).expect("a request");
            PictureBody::from_request(request, &()).await
        };
        let mut held = Vec::new();
        for _ in 0..MAX_PICTURES {
            held.push(picture().await.expect("there is room"));
        }
        let problem = picture().await.expect_err("no room");
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        held.pop();
        assert_eq!(picture().await.expect("room again").bytes, "picture");
    }

    #[tokio::test(start_paused = true)]
    async fn other_types_and_huge_or_slow_bodies_are_rejected() {
        let status = async |kind: &str, body: axum::body::Body| {
            let request = Request::builder().header("content-type", kind);
            let request = request.body(body).expect("a request");
            let read = JsonBody::<Zones>::from_request(request, &()).await;
            read.map_or_else(|p| p.status().as_u16(), |_| 200)
        };
        assert_eq!(
            status("application/json", "{\"zones\": []}".into()).await,
            200
        );
        assert_eq!(
            status("application/JSON; charset=utf-8", "{\"zones\": []}".into()).await,
            200
        );
        assert_eq!(status("text/plain", "{\"zones\": []}".into()).await, 415);
        assert_eq!(status("", "{\"zones\": []}".into()).await, 415);
        let huge = vec![b' '; MAX_BODY + 1];
        assert_eq!(status("application/json", huge.into()).await, 413);
        let never = tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let never = axum::body::Body::from_stream(never);
        assert_eq!(status("application/json", never).await, 408);
    }
}
