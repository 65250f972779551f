//! The HTTP interface `/api/v1` of a running service with a history: tracks, zones, search,
//! identities, exports, live streams.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use common::{complete_lines, json_lines, output_within, repository, until};
use http::{Answer, Request, Service, connect};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};
use twintrack::serve::server::{openapi, routes};

/// Settings with a history of everything, and a zone and a line of the configuration.
const HISTORY: &str = "
[history]
embeddings = true
crops = true
[cameras.c1.zones.all]
points = [[0, 0], [1, 0], [1, 1], [0, 1]]
[cameras.c1.lines.middle]
points = [[0.5, 0], [0.5, 1]]
";

fn start(dir: &Path) -> Service {
    Service::start(dir, HISTORY)
}

/// The answer to a GET request, which must be JSON with status 200.
fn get(service: &Service, path: &str) -> Value {
    let answer = service.get(path, &[]);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// Status, code and field of the problem with which a GET request is answered.
fn problem(service: &Service, path: &str) -> (u16, String, String) {
    service.get(path, &[]).problem()
}

fn send(service: &Service, method: &str, path: &str, body: &Value) -> Answer {
    service.send(&Request::json(method, path, &body.to_string()))
}

fn post_picture(service: &Service, path: &str, picture: &[u8]) -> Answer {
    service.send(&Request::bytes("POST", path, "image/jpeg", picture))
}

/// The ended tracks with a stored crop, once there are at least `count` of them.
fn ended_tracks(service: &Service, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    let enough = || {
        let page = get(service, "/api/v1/tracks?limit=1000&min_duration=1");
        let items = page["items"].as_array().unwrap().iter();
        let ended = items.filter(|t| t["ended"] == true && t["crop"].is_number());
        found = ended.cloned().collect();
        found.len() >= count
    };
    assert!(until(120, enough), "{}", service.log());
    found
}

/// Path of a track's routes.
fn path_of(track: &Value) -> String {
    let text = |key: &str| track[key].as_str().unwrap().to_string();
    format!(
        "/api/v1/tracks/{}/{}/{}",
        text("run"),
        text("camera"),
        track["id"]
    )
}

#[test]
fn tracks_are_listed_shown_counted_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path());
    let about = get(&service, "/api/v1/service");
    assert_eq!(about["history"], true);
    assert_eq!(
        (&about["embeddings"], &about["search"]),
        (&json!(true), &json!(true))
    );
    let tracks = ended_tracks(&service, 5);

    // Small pages together have all tracks of one large page, without repetition.
    let until_now = format!("to={}", tracks[0]["first_time"].as_str().unwrap());
    let whole = get(&service, &format!("/api/v1/tracks?limit=1000&{until_now}"));
    let whole = whole["items"].as_array().unwrap().clone();
    let (mut paged, mut next) = (Vec::new(), String::new());
    loop {
        let page = get(
            &service,
            &format!("/api/v1/tracks?limit=2&{until_now}{next}"),
        );
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next"].as_str() else {
            break;
        };
        next = format!("&cursor={cursor}");
    }
    let keys = |all: &[Value]| all.iter().map(path_of).collect::<Vec<_>>();
    assert_eq!(keys(&paged), keys(&whole));
    let unique: BTreeSet<String> = keys(&paged).into_iter().collect();
    assert_eq!(unique.len(), paged.len());
    for (filter, count) in [
        ("camera=nowhere", 0),
        ("zone=nowhere", 0),
        ("identity=nobody", 0),
        ("min_duration=1e6", 0),
        ("run=00000000-0000-0000-0000-000000000000", 0),
        ("camera=c1", whole.len()),
    ] {
        let page = get(
            &service,
            &format!("/api/v1/tracks?limit=1000&{until_now}&{filter}"),
        );
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{filter}");
    }

    // A track with its path, boxes and crops; a client that has the same answer already gets no
    // body.
    let path = path_of(&tracks[0]);
    let answer = service.get(&path, &[]);
    let track = answer.json();
    let points = track["path"].as_array().unwrap();
    assert!(points.len() >= 2, "{track}");
    let first = track["first"].as_f64().unwrap();
    assert!(
        (0.0..1.0).contains(&(points[0][0].as_f64().unwrap() - first)),
        "{track}"
    );
    let boxes = track["boxes"].as_array().unwrap();
    assert!(boxes.len() >= 2 && boxes.iter().all(|b| b.as_array().unwrap().len() == 5));
    assert_eq!(track["views"][0]["id"], tracks[0]["crop"]);
    assert_eq!(track["zones"], json!(["all"]));
    let tag = answer.header("etag").unwrap().to_string();
    let again = service.get(&path, &[("if-none-match", &tag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), Some(tag.as_str()));
    assert_eq!(
        service.get(&path, &[("if-none-match", "\"other\"")]).status,
        200
    );
    let crop = service.get(&format!("/api/v1/crops/{}", tracks[0]["crop"]), &[]);
    assert_eq!(crop.header("content-type"), Some("image/jpeg"));
    assert_eq!(crop.body[..3], [0xff, 0xd8, 0xff]);

    // Tracks that are similar to it, without the track itself, from the most similar one.
    let similar = get(&service, &format!("{path}/similar?limit=3"));
    let similar = similar["items"].as_array().unwrap();
    assert_eq!(similar.len(), 3);
    let distances: Vec<f64> = similar
        .iter()
        .map(|t| t["distance"].as_f64().unwrap())
        .collect();
    assert!(
        distances.is_sorted() && distances[0] >= 0.0,
        "{distances:?}"
    );
    for found in similar {
        assert_ne!(path_of(found), path);
        let similarity = found["similarity"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&similarity), "{found}");
    }

    // Counts.
    let events = get(&service, "/api/v1/events?kind=line&name=middle&limit=1000");
    let events = events["items"].as_array().unwrap();
    assert!(!events.is_empty());
    assert!(
        events
            .iter()
            .all(|e| e["event"]["line"] == "middle" && e["kind"] == "line")
    );
    let span = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&bucket=1e9";
    let buckets = get(&service, &format!("/api/v1/statistics?{span}"));
    let buckets = buckets["buckets"].as_array().unwrap();
    let crossings: u64 = buckets
        .iter()
        .flat_map(|b| [&b["lines"]["middle"]["in"], &b["lines"]["middle"]["out"]])
        .filter_map(Value::as_u64)
        .sum();
    assert!(crossings >= events.len() as u64);
    let map = get(&service, "/api/v1/heatmap?camera=c1&columns=8");
    let rows = map["seconds"].as_array().unwrap();
    assert_eq!((rows.len(), rows[0].as_array().unwrap().len()), (6, 8));
    let seconds: f64 = rows
        .iter()
        .flat_map(|r| r.as_array().unwrap())
        .filter_map(Value::as_f64)
        .sum();
    assert!(
        seconds > 10.0 && map["tracks"].as_u64().unwrap() >= 5,
        "{map}"
    );
    let cameras = get(&service, "/api/v1/cameras");
    let camera = &cameras["cameras"][0];
    assert_eq!(camera["frame"], json!([768, 576]));
    assert!(camera["zones"]["all"]["occupancy"].is_u64(), "{camera}");
    assert!(camera["lines"]["middle"]["in"].is_u64(), "{camera}");
    let states = get(&service, "/api/v1/cameras/c1/status");
    assert_eq!(states["items"][0]["state"], "online");

    exports(&service, &whole, &until_now);
}

/// Checks the exports of the tracks `whole`, which are those of the query `filter`.
fn exports(service: &Service, whole: &[Value], filter: &str) {
    let export = |format: &str, more: &str| {
        let path = format!("/api/v1/export/tracks?format={format}&{filter}{more}");
        let (headers, body) = whole_answer(service, &path);
        assert!(
            headers.contains(" 200 ") && headers.contains("attachment; filename="),
            "{headers}"
        );
        body
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let lines = json_lines(&text(export("jsonl", "")));
    let key = |t: &Value| (t["camera"].clone(), t["id"].clone());
    let ids = |all: &[Value]| all.iter().map(key).collect::<Vec<_>>();
    assert_eq!(ids(&lines), ids(whole));
    assert!(
        lines
            .iter()
            .any(|t| !t["path"].as_array().unwrap().is_empty())
    );
    let csv = text(export("csv", ""));
    assert!(csv.starts_with("run,camera,id,first_time,"), "{csv}");
    assert_eq!(csv.lines().count(), 1 + whole.len());
    // MOTChallenge: the tracks' frames without gaps, and boxes of people.
    let mot = text(export("mot", "&camera=c1"));
    let rows: Vec<Vec<f64>> = mot
        .lines()
        .map(|l| l.split(',').map(|n| n.parse().unwrap()).collect())
        .collect();
    let track = lines
        .iter()
        .max_by_key(|t| t["boxes"].as_array().map_or(0, Vec::len))
        .unwrap();
    let own: Vec<&Vec<f64>> = rows
        .iter()
        .filter(|r| Some(r[1]) == track["id"].as_f64())
        .collect();
    let boxes = track["boxes"].as_array().unwrap();
    let last = boxes.last().unwrap()[0].as_f64().unwrap();
    let length = last - boxes[0][0].as_f64().unwrap() + 1.0;
    assert_eq!(own.len() as f64, length, "{track}");
    assert!(own.windows(2).all(|w| w[1][0] - w[0][0] == 1.0));
    assert!(
        own.iter().all(|r| r[5] > r[4] && r[4] > 5.0),
        "people are upright"
    );
    // Parquet.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&export("parquet", "")).unwrap();
    let file = SerializedFileReader::new(file).unwrap();
    assert_eq!(
        file.metadata().file_metadata().num_rows(),
        whole.len() as i64
    );
    let row = file.get_row_iter(None).unwrap().next().unwrap().unwrap();
    assert_eq!(
        Some(row.get_string(1).unwrap().as_str()),
        whole[0]["camera"].as_str()
    );
    assert_eq!(Some(row.get_long(2).unwrap()), whole[0]["id"].as_i64());
    for (query, field) in [
        ("format=mot", "camera"),
        ("format=xml", "format"),
        ("", "format"),
    ] {
        let path = format!("/api/v1/export/tracks?{query}");
        assert_eq!(problem(service, &path).2, field, "{query}");
    }
}

/// Head and body of the answer to a GET request, whose body may be of any length.
fn whole_answer(service: &Service, path: &str) -> (String, Vec<u8>) {
    let mut stream = connect(service.port);
    // HTTP/1.0: the body ends with the connection, and is not cut into chunks.
    let head = format!(
        "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\n\r\n",
        service.port
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end + 4..].to_vec())
}

#[test]
fn zones_and_lines_are_drawn_counted_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path());
    let shapes = "/api/v1/cameras/c1/shapes";
    let answer = service.get(shapes, &[]);
    let tag = answer.header("etag").unwrap().to_string();
    let before = answer.json();
    assert_eq!(before["zones"]["all"]["origin"], "configuration");
    assert_eq!(before["zones"]["all"]["pixels"][2], json!([768.0, 576.0]));
    let put = |path: &str, body: &Value| {
        let path = format!("/api/v1/cameras/c1/{path}");
        send(&service, "PUT", &path, body)
    };
    // Two lines over the whole height: everybody who walks far enough crosses one.
    let line = json!({"points": [[0.4, 0], [0.4, 1]]});
    assert_eq!(put("lines/drawn", &line).status, 201);
    assert_eq!(put("lines/drawn", &line).status, 200, "replaced by itself");
    let zone = json!({"points": [[0, 0], [400, 0], [400, 500]], "unit": "pixel", "limit": 2});
    assert_eq!(put("zones/left", &zone).status, 201);
    let mask = json!({"points": [[0, 0], [0.01, 0], [0, 0.01]], "ignore": "counting"});
    assert_eq!(put("masks/corner", &mask).status, 201);
    let view = get(&service, shapes);
    assert_eq!(view["lines"]["drawn"]["origin"], "drawn");
    assert_eq!(view["zones"]["left"]["limit"], 2);
    assert_eq!(view["masks"]["corner"]["ignore"], "counting");
    let counted = || {
        let page = get(&service, "/api/v1/events?name=drawn&limit=1");
        !page["items"].as_array().unwrap().is_empty()
    };
    assert!(until(120, counted), "nobody crossed the drawn line");
    // The camera was not opened again.
    let camera = get(&service, "/api/v1/cameras")["cameras"][0].clone();
    assert_eq!(
        (&camera["reconnects"], &camera["failures"]),
        (&json!(0), &json!(0))
    );
    assert!(camera["lines"]["drawn"]["in"].is_u64(), "{camera}");

    // Refused, with the field.
    for (path, body, wanted) in [
        ("zones/all", zone.clone(), (409, "configured", "")),
        ("zones/a%20b", zone.clone(), (422, "invalid-field", "name")),
        ("zones/..%2fx", zone.clone(), (422, "invalid-field", "name")),
        (
            "zones/two",
            json!({"points": [[0, 0], [1, 1]]}),
            (422, "invalid-field", "points"),
        ),
        (
            "zones/bow",
            json!({"points": [[0, 0], [1, 1], [1, 0], [0, 1]]}),
            (422, "invalid-field", "points"),
        ),
        (
            "zones/a",
            json!({"points": [[0, 0], [1, 0], [1, 1]], "dwell": -1}),
            (422, "invalid-field", "dwell"),
        ),
        (
            "zones/a",
            json!({"points": "all"}),
            (422, "invalid-field", "points"),
        ),
        (
            "zones/a",
            json!({"points": [[0, 0, 0]]}),
            (422, "invalid-field", "points[0]"),
        ),
        (
            "zones/a",
            json!({"corners": []}),
            (422, "invalid-field", "corners"),
        ),
        (
            "lines/a",
            json!({"points": [[0, 0], [1, 1]], "wrong": "up"}),
            (422, "invalid-field", "wrong"),
        ),
        (
            "lines/a",
            json!({"points": [[0, 0], [1e300, 1]]}),
            (422, "invalid-field", "points"),
        ),
        (
            "zones/a",
            json!({"points": [[0, 0], [1, 0], [1, 1]], "unit": "metre"}),
            (422, "invalid-field", "points"),
        ),
    ] {
        let (status, code, field) = put(path, &body).problem();
        assert_eq!(
            (status, code.as_str(), field.as_str()),
            wanted,
            "{path} {body}"
        );
    }
    let unknown = send(&service, "PUT", "/api/v1/cameras/yard/zones/a", &zone);
    assert_eq!(unknown.problem().0, 404);
    let patched = service.send(&Request::new("PATCH", shapes)).problem();
    assert_eq!((patched.0, patched.1.as_str()), (405, "method-not-allowed"));
    // A client that does not know the present shapes changes nothing.
    let delete = |path: &str, headers: &[(&str, &str)]| {
        let path = format!("/api/v1/cameras/c1/{path}");
        service.send(&Request::new("DELETE", &path).with(headers))
    };
    let stale = delete("zones/left", &[("if-match", &tag)]);
    assert_eq!(stale.problem().1, "changed");
    // Regression: of several changes at once with the same tag, more than one succeeded.
    let tag = service.get(shapes, &[]).header("etag").unwrap().to_string();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let put = |n: usize| {
            let (service, tag) = (&service, &tag);
            scope.spawn(move || {
                let path = format!("/api/v1/cameras/c1/lines/at-once-{n}");
                let body = json!({"points": [[0.1, 0.1], [0.9, 0.2]]}).to_string();
                let request = Request::json("PUT", &path, &body);
                service
                    .send(&request.with(&[("if-match", tag.as_str())]))
                    .status
            })
        };
        let sent: Vec<_> = (0..6).map(put).collect();
        sent.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((of(201), of(412)), (1, 5), "{statuses:?}");
    for n in 0..6 {
        delete(&format!("lines/at-once-{n}"), &[]);
    }
    let present = service.get(shapes, &[]).header("etag").unwrap().to_string();
    assert_eq!(delete("zones/left", &[("if-match", &present)]).status, 204);
    assert_eq!(delete("zones/left", &[]).problem().0, 404);
    assert_eq!(delete("zones/all", &[]).problem().1, "configured");
    assert_eq!(delete("masks/corner", &[]).status, 204);

    // SIGHUP keeps what was drawn, and so does a new start.
    service.child.signal("HUP");
    assert!(until(60, || service.log().contains("has been read again")));
    assert!(get(&service, shapes)["lines"]["drawn"].is_object());
    drop(service);
    let service = start(dir.path());
    let view = get(&service, shapes);
    assert!(
        view["lines"]["drawn"].is_object() && view["zones"]["left"].is_null(),
        "{view}"
    );
}

#[test]
fn people_are_searched_enrolled_recognised_renamed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path());
    let tracks = ended_tracks(&service, 3);
    let track = &tracks[0];
    let crop = service
        .get(&format!("/api/v1/crops/{}", track["crop"]), &[])
        .body;
    let found = post_picture(&service, "/api/v1/search?limit=5", &crop);
    assert_eq!(found.status, 200, "{found:?}");
    let found = found.json();
    let place = found["items"].as_array().unwrap().iter();
    let place = place.map(path_of).position(|p| p == path_of(track));
    assert!(
        place.is_some(),
        "the track of the crop is among the five: {found}"
    );

    // Pictures that cannot be used.
    let refused = |path: &str, picture: &[u8]| post_picture(&service, path, picture).problem();
    let code = |path: &str, picture: &[u8]| refused(path, picture).1;
    let frame = service
        .get("/api/v1/cameras/c1/picture.jpg?overlay=false", &[])
        .body;
    assert_eq!(code("/api/v1/search", &frame), "several-people");
    assert_eq!(refused("/api/v1/search", &frame).2, "box");
    let [x, y, w, h] = [300, 200, 50, 120];
    let boxed = format!("/api/v1/search?box={x},{y},{w},{h}");
    let boxed = post_picture(&service, &boxed, &frame).json();
    assert_eq!(boxed["box"], json!([300.0, 200.0, 50.0, 120.0]));
    for region in [
        "1,2,3",
        "a,b,c,d",
        "0,0,0,10",
        "nan,0,9,9",
        "9000,9000,50,50",
    ] {
        let path = format!("/api/v1/search?box={region}");
        assert_eq!(refused(&path, &frame).2, "box", "{region}");
    }
    let grey = include_bytes!("fixtures/grey.png");
    let answer = service.send(&Request::bytes("POST", "/api/v1/search", "image/png", grey));
    assert_eq!(answer.problem().1, "no-person");
    assert_eq!(code("/api/v1/search", b"no picture"), "invalid-picture");
    assert_eq!(code("/api/v1/search", &crop[..200]), "invalid-picture");
    let huge = vec![0xff; (8 << 20) + 1];
    assert_eq!(code("/api/v1/search", &huge), "body-size");
    // Parameters are checked before the picture is decoded.
    assert_eq!(refused("/api/v1/search?limit=0", b"no picture").2, "limit");
    let blank = "/api/v1/identities/%20/pictures";
    assert_eq!(refused(blank, b"no picture").2, "name");
    let text = Request::json("POST", "/api/v1/search", "{}");
    assert_eq!(service.send(&text).problem().1, "media-type");

    // Enrolled by a track, the person is recognised when the clip shows them again.
    let person = |name: &str| {
        json!({"name": name, "track":
        {"run": track["run"], "camera": track["camera"], "id": track["id"]}})
    };
    let enrol = |body: &Value| send(&service, "POST", "/api/v1/identities", body);
    assert_eq!(enrol(&person("Ada Lovelace")).status, 201);
    let listed = get(&service, "/api/v1/identities");
    assert_eq!(listed["items"][0]["name"], "Ada Lovelace");
    let named = |name: &str| {
        let page = get(
            &service,
            &format!("/api/v1/tracks?identity={}", name.replace(' ', "%20")),
        );
        page["items"].as_array().unwrap().clone()
    };
    assert!(
        until(180, || !named("Ada Lovelace").is_empty()),
        "nobody was recognised"
    );
    let picture = "/api/v1/identities/Ada%20Lovelace/pictures";
    assert_eq!(post_picture(&service, picture, &crop).status, 201);
    let listed = get(&service, "/api/v1/identities");
    assert_eq!(listed["items"][0]["embeddings"], 2);
    for (body, wanted) in [
        (
            json!({"name": "x", "track": {"run": track["run"], "camera": "c1", "id": 999_999}}),
            (404, ""),
        ),
        (
            json!({"name": "", "track": {"run": track["run"], "camera": "c1", "id": track["id"]}}),
            (422, "name"),
        ),
        (json!({"name": "x"}), (422, "track")),
        (
            json!({"name": "x", "track": {"run": "y", "camera": "c1", "id": 1}}),
            (422, "track.run"),
        ),
    ] {
        let (status, _, field) = enrol(&body).problem();
        assert_eq!((status, field.as_str()), wanted, "{body}");
    }

    // Renamed, and deleted with everything.
    let rename = |from: &str, to: &str| {
        let path = format!("/api/v1/identities/{from}/rename");
        send(&service, "POST", &path, &json!({"name": to}))
    };
    assert_eq!(enrol(&person("Bob")).status, 201);
    assert_eq!(rename("Bob", "Ada Lovelace").problem().1, "exists");
    assert_eq!(rename("Nobody", "Carl").problem().0, 404);
    assert_eq!(rename("Ada%20Lovelace", "Ada").status, 204);
    assert!(named("Ada Lovelace").is_empty() && !named("Ada").is_empty());
    let of_ada = named("Ada")
        .into_iter()
        .filter(|t| t["ended"] == true && t["crops"] != 0);
    let of_ada: Vec<Value> = of_ada.collect();
    let deleted = service.send(&Request::new("DELETE", "/api/v1/identities/Ada"));
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert!(
        deleted.json()["embeddings"].as_u64() >= Some(2),
        "{deleted:?}"
    );
    assert!(named("Ada").is_empty());
    for track in of_ada {
        let path = format!("/api/v1/crops/{}", track["crop"]);
        assert_eq!(service.get(&path, &[]).status, 404);
        let track = get(&service, &path_of(&track));
        assert!(
            track["identity"].is_null() && track["embedder"].is_null(),
            "{track}"
        );
    }
    let again = service.send(&Request::new("DELETE", "/api/v1/identities/Ada"));
    assert_eq!(again.problem().0, 404);
}

type Socket = WebSocket<std::net::TcpStream>;

fn websocket(service: &Service, path: &str) -> Socket {
    let address = format!("ws://127.0.0.1:{}{path}", service.port);
    let (socket, _) = tungstenite::client::client(address, connect(service.port)).unwrap();
    socket
}

/// The next message of a live stream.
fn message(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[test]
fn a_client_that_reconnects_misses_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut seen = Vec::new();
    let mut token = String::new();
    for _ in 0..3 {
        let path = format!("/api/v1/live?events=trajectory&resume={token}");
        let mut socket = websocket(&service, &path);
        let (mut events, mut tokens) = (Vec::new(), 0);
        while tokens < 2 || events.len() < 3 {
            let message = message(&mut socket);
            match message["schema"].as_str().unwrap() {
                "twintrack.resume/1" => {
                    token = message["token"].as_str().unwrap().into();
                    seen.append(&mut events.clone());
                    tokens += 1;
                }
                "twintrack.trajectory/1" => events.push(message["frame"].as_u64().unwrap()),
                other => panic!("{other}"),
            }
        }
        // What came after the last token is sent again.
        drop(socket);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    seen.sort_unstable();
    seen.dedup();
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    // A camera drops frames while the detector is busy, so the events of the file count.
    let written = || -> Vec<u64> {
        complete_lines(&service.dir.join("out.jsonl"))
            .iter()
            .filter(|e| e["schema"] == "twintrack.trajectory/1")
            .filter_map(|e| e["frame"].as_u64())
            .collect()
    };
    assert!(until(60, || written().last().is_some_and(|f| *f >= last)));
    let mut between = written();
    between.retain(|f| (first..=last).contains(f));
    assert_eq!(seen, between);

    // Server-sent events have the token as their id.
    let mut stream = connect(service.port);
    let request = format!(
        "GET /api/v1/live?events=trajectory HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\
         Last-Event-ID: {token}\r\n\r\n",
        service.port
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let id = lines
        .find_map(|l| l.strip_prefix("id: ").map(str::to_string))
        .unwrap();
    assert_eq!(
        id.split('.').next(),
        token.split('.').next(),
        "the same stream"
    );
    let data = lines
        .find_map(|l| l.strip_prefix("data: ").map(str::to_string))
        .unwrap();
    let event: Value = serde_json::from_str(&data).unwrap();
    let frame = event["frame"].as_u64().unwrap();
    let next = || written().into_iter().find(|f| *f > last);
    let none_missed = until(60, || next().is_some_and(|next| frame <= next));
    assert!(none_missed, "{event} {:?}", next());

    // A token of another run: the kept events are sent, after the message that events are missing.
    let other = format!("{}.7", uuid::Uuid::now_v7().simple());
    let mut socket = websocket(&service, &format!("/api/v1/live?resume={other}"));
    assert_eq!(message(&mut socket)["schema"], "twintrack.missed/1");
    for (query, field) in [
        ("resume=x", "resume"),
        ("events=people", "events"),
        ("a=b", "a"),
    ] {
        let (_, _, named) = problem(&service, &format!("/api/v1/live?{query}"));
        assert_eq!(named, field, "{query}");
    }
}

#[test]
fn pictures_come_with_the_number_of_their_frame() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), "");
    let mut socket = websocket(
        &service,
        "/api/v1/cameras/c1/video?width=200&rate=30&overlay=false",
    );
    let mut frames = Vec::new();
    while frames.len() < 3 {
        let Message::Binary(message) = socket.read().unwrap() else {
            continue;
        };
        let (head, jpeg) = message.split_at(16);
        let pts = f64::from_be_bytes(head[8..].try_into().unwrap());
        frames.push((u64::from_be_bytes(head[..8].try_into().unwrap()), pts));
        assert_eq!(jpeg[..3], [0xff, 0xd8, 0xff]);
        let size = imagesize::blob_size(jpeg).unwrap();
        assert_eq!((size.width, size.height), (200, 150));
    }
    assert!(frames.is_sorted() && frames[0].0 > 0, "{frames:?}");
    let known = common::complete_lines(&dir.path().join("out.jsonl"));
    for (frame, pts) in frames {
        let event = known.iter().find(|e| e["frame"] == frame);
        assert!(event.is_none_or(|e| e["pts"] == pts), "{frame} {pts}");
    }
    // Motion JPEG.
    let mut stream = connect(service.port);
    let host = format!("Host: 127.0.0.1:{}", service.port);
    write!(
        stream,
        "GET /api/v1/cameras/c1/video?width=64 HTTP/1.1\r\n{host}\r\n\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(stream)
        .split(b'\n')
        .map(|l| String::from_utf8_lossy(&l.unwrap()).trim_end().to_string());
    let boundary = lines
        .find_map(|l| {
            l.strip_prefix("content-type: multipart/x-mixed-replace; boundary=")
                .map(str::to_string)
        })
        .unwrap();
    let found = (0..2).all(|_| lines.any(|l| l == format!("--{boundary}")));
    assert!(found && lines.any(|l| l.starts_with("x-twintrack-frame: ")));
    let picture = service.get("/api/v1/cameras/c1/picture.jpg", &[]);
    assert!(
        picture
            .header("x-twintrack-frame")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    for (path, wanted) in [
        ("cameras/yard/video", (404, "")),
        ("cameras/c1/video?rate=0", (422, "rate")),
        ("cameras/c1/video?width=1", (422, "width")),
        ("cameras/c1/video?wide=1", (400, "wide")),
        ("cameras/yard/picture.jpg", (404, "")),
        ("cameras/c1/picture.jpg?overlay=maybe", (400, "overlay")),
    ] {
        let (status, _, field) = problem(&service, &format!("/api/v1/{path}"));
        assert_eq!((status, field.as_str()), wanted, "{path}");
    }
}

#[test]
fn queries_with_errors_are_refused_with_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path());
    let run = "00000000-0000-0000-0000-000000000000";
    for (path, wanted) in [
        ("tracks?limit=0", (422, "limit")),
        ("tracks?limit=1001", (422, "limit")),
        ("tracks?limit=-1", (400, "limit")),
        ("tracks?from=yesterday", (400, "from")),
        ("tracks?camera=a&camera=b", (400, "camera")),
        ("tracks?zone='%20OR%201=1--&colour=red", (400, "colour")),
        ("tracks?cursor=1", (422, "cursor")),
        ("tracks?min_duration=nan", (422, "min_duration")),
        ("tracks?min_duration=-1", (422, "min_duration")),
        ("events?kind=door", (400, "kind")),
        ("statistics?from=2026-01-01T00:00:00Z", (400, "to")),
        (
            "statistics?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
            (422, "to"),
        ),
        (
            "statistics?from=2000-01-01T00:00:00Z&to=2026-01-01T00:00:00Z&bucket=1",
            (422, "bucket"),
        ),
        ("heatmap?camera=c1&columns=0", (422, "columns")),
        ("heatmap", (400, "camera")),
        ("crops/-1", (404, "")),
        ("crops/x", (404, "")),
        ("crops/99999999999999999999999", (404, "")),
        ("cameras/yard/shapes", (404, "")),
        ("cameras/yard/status", (404, "")),
        (&format!("tracks/{run}/c1/1"), (404, "")),
        (&format!("tracks/{run}/c1/1/similar"), (404, "")),
        ("tracks/..%2f..%2fetc%2fpasswd/c1/1", (404, "")),
        ("tracks?token=x&limit=1001", (422, "limit")),
    ] {
        let (status, _, field) = problem(&service, &format!("/api/v1/{path}"));
        assert_eq!((status, field.as_str()), wanted, "{path}");
    }
    let hosts = [("host", "localhost"), ("host", "evil.example")];
    let two = service.get("/api/v1/service", &hosts);
    assert_eq!(two.problem().0, 400, "{two:?}");
    // The end of the calendar of RFC 3339.
    let never = "/api/v1/tracks?from=9999-12-31T23:59:59Z&to=9999-12-31T23:59:59Z";
    assert_eq!(get(&service, never)["items"], json!([]));
    // Metacharacters of SQL are ordinary characters.
    for name in ["'%3B%20DROP%20TABLE%20tracks%3B--", "%25", "_", "%00"] {
        let page = get(
            &service,
            &format!("/api/v1/tracks?camera={name}&zone={name}"),
        );
        assert_eq!(page["items"], json!([]), "{name}");
    }
    // Without a history, its routes say so.
    let other = tempfile::tempdir().unwrap();
    let plain = Service::start(other.path(), "");
    assert_eq!(get(&plain, "/api/v1/service")["history"], false);
    for path in [
        "tracks",
        "events",
        "identities",
        "export/tracks?format=csv",
        "heatmap?camera=c1",
    ] {
        let (status, code, _) = problem(&plain, &format!("/api/v1/{path}"));
        assert_eq!((status, code.as_str()), (404, "no-history"), "{path}");
    }
}

/// Schemathesis makes requests of the OpenAPI document, valid and invalid ones, and compares the
/// answers with it.
#[test]
fn schemathesis_finds_no_answer_that_contradicts_the_openapi_document() {
    let program = repository(".deps/schemathesis/bin/schemathesis");
    if !program.exists() {
        eprintln!("SKIPPED: schemathesis is not installed; `make setup-test` installs it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path());
    ended_tracks(&service, 1);
    let mut command = Command::new(program);
    command
        .arg("--config-file")
        .arg(repository("tests/fixtures/schemathesis.toml"))
        .arg("run")
        .arg(format!(
            "http://127.0.0.1:{}/api/v1/openapi.json",
            service.port
        ))
        // Streams do not end.
        .args([
            "--exclude-path-regex",
            "/(live|video)$",
            "--phases",
            "coverage,fuzzing",
            "--request-timeout",
            "60",
        ])
        .args([
            "--max-examples",
            "10",
            "--seed",
            "1",
            "--no-color",
            "--checks",
        ])
        .arg(
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_schema_conformance,response_headers_conformance,negative_data_rejection",
        )
        .current_dir(dir.path());
    let out = output_within(1200, &mut command);
    let report = common::text(&out.stdout);
    assert!(
        out.status.success(),
        "{report}{}",
        common::text(&out.stderr)
    );
    // The check can fail: it has tested the routes.
    let tested = report
        .lines()
        .find_map(|l| l.trim().strip_prefix("Tested: "));
    let tested: usize = tested
        .unwrap_or_else(|| panic!("{report}"))
        .parse()
        .unwrap();
    assert!(tested >= 25, "{report}");
}

#[test]
fn every_route_of_the_interface_is_in_the_openapi_document() {
    let document = openapi("/below");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], "/below");
    let mut operations = BTreeSet::new();
    for route in routes().table() {
        let method = route.method.as_str().to_lowercase();
        let described = &document["paths"][route.path][&method];
        if !route.path.starts_with("/api/v1/") {
            assert!(described.is_null(), "{}", route.path);
            continue;
        }
        assert!(described["summary"].is_string(), "{method} {}", route.path);
        let id = described["operationId"].as_str().unwrap();
        assert!(operations.insert(id.to_string()), "{id} twice");
        // Every parameter of the path is described, with what it is.
        let parameters = described["parameters"].as_array().unwrap();
        for name in route
            .path
            .split('{')
            .skip(1)
            .filter_map(|s| s.split('}').next())
        {
            let found = parameters
                .iter()
                .find(|p| p["in"] == "path" && p["name"] == name);
            let found = found.unwrap_or_else(|| panic!("{name} of {}", route.path));
            assert!(
                found["description"].is_string() && found["schema"]["type"].is_string(),
                "{found}"
            );
        }
        for parameter in parameters {
            assert!(
                parameter["description"].is_string(),
                "{}: {parameter}",
                route.path
            );
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text
        .split("\"$ref\":\"#")
        .skip(1)
        .filter_map(|s| s.split('"').next())
    {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}
