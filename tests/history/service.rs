//! `twintrack serve` with a history.

use twintrack::store::History;
use twintrack::store::query::{TrackFilter, TrackSummary};
use twintrack::store::search::SearchFilter;

use crate::common::{clip, json_lines, text, twintrack};
use crate::data::{Place, run};

/// The history agrees with the events that the same run has written.
#[test]
fn a_recording_that_serve_has_tracked_is_in_the_history() {
    let place = Place::file();
    let (dir, state) = (place.folder.path(), place.folder.path().join("state"));
    let file = dir.join("cameras.toml");
    let toml = format!(
        "[cameras.gate]\nurl = {:?}\nrealtime = false\n[serve]\nlisten = \"\"\n\
         state_dir = {state:?}\nstop_within = 60\n[detector]\nsize = \"416x320\"\n\
         [history]\nembeddings = true\ncrops = true\ncrop_height = 120\nupdate_every = 1\n\
         keep_days = {{ tracks = 0, events = 0, crops = 0, embeddings = 0 }}\n",
        clip()
    );
    std::fs::write(&file, toml).unwrap();
    let out = twintrack()
        .args(["serve", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let summary = text(&out.stderr);
    assert!(out.status.success(), "{summary}");
    assert!(summary.contains("changes stored, 0 dropped"), "{summary}");
    let events = json_lines(&text(&out.stdout));
    let ended: Vec<_> = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.track_ended/1")
        .collect();
    assert!(ended.len() >= 8, "{} tracks", ended.len());
    assert!(
        ended.iter().all(|e| e.get("embedding").is_none()),
        "embeddings are for the history only"
    );

    let history = History::open(&place.config, &state, run(2)).unwrap();
    let page = history.tracks(&TrackFilter::default(), None, 1000).unwrap();
    assert_eq!(page.items.len(), ended.len());
    let of = |id: u64| page.items.iter().find(|t| t.id == id).unwrap();
    let mut pictures = 0;
    for event in &ended {
        let stored: &TrackSummary = of(event["id"].as_u64().unwrap());
        assert!(stored.ended && stored.camera == "gate");
        assert_eq!(u64::from(stored.hits), event["hits"].as_u64().unwrap());
        assert!((stored.last - event["last"].as_f64().unwrap()).abs() < 1e-6);
        assert!((stored.first - event["first"].as_f64().unwrap()).abs() < 0.002);
        let detail = history
            .track(stored.run, "gate", stored.id)
            .unwrap()
            .unwrap();
        assert_eq!(serde_json::to_value(&detail.path).unwrap(), event["path"]);
        for view in detail.views {
            assert!(view.size[1] <= 120);
            let jpeg = history.crop(view.id).unwrap().unwrap();
            assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]));
            pictures += 1;
        }
    }
    assert!(
        pictures >= ended.len(),
        "{pictures} crops of {} tracks",
        ended.len()
    );
    let states = history.camera_status("gate", 10).unwrap();
    assert_eq!(states[0].state, "ended");
    // A track is the nearest to itself.
    let longest = page
        .items
        .iter()
        .max_by(|a, b| a.duration.total_cmp(&b.duration))
        .unwrap();
    let (embedder, embedding) = history
        .embedding(longest.run, "gate", longest.id)
        .unwrap()
        .unwrap();
    let near = history
        .search(&embedder, &embedding, 3, &SearchFilter::default())
        .unwrap();
    assert_eq!((near.len(), near[0].track.id), (3, longest.id));
    assert!(near[0].distance < 1e-5 && near[1].distance > near[0].distance);
    crate::data::close(&history);
}

#[test]
fn a_history_that_cannot_be_opened_stops_the_start() {
    let place = Place::file();
    let state = place.folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(
        state.join("history.sqlite"),
        "not a database, but notes".repeat(99),
    )
    .unwrap();
    let file = place.folder.path().join("cameras.toml");
    let toml = format!(
        "[cameras.gate]\nurl = {:?}\n[serve]\nlisten = \"\"\nstate_dir = {state:?}\n[history]\n",
        clip()
    );
    std::fs::write(&file, toml).unwrap();
    let out = twintrack()
        .args(["serve", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let says = text(&out.stderr);
    assert!(
        says.contains("history.sqlite") && says.contains("move the file"),
        "{says}"
    );
}

/// Regression: the exit code was 0, although nothing was stored.
#[test]
fn a_run_whose_history_cannot_be_stored_fails() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.toml");
    let toml = format!(
        "[cameras.gate]\nurl = {:?}\nrealtime = false\n[serve]\nlisten = \"\"\n\
         state_dir = {:?}\nstop_within = 0.5\n[detector]\nsize = \"128x96\"\n\
         [embedder]\nenabled = false\n[history]\nurl = \"postgres://nobody@127.0.0.1:1/none\"\n",
        clip(),
        dir.path().join("state")
    );
    std::fs::write(&file, toml).unwrap();
    let out = twintrack()
        .args(["serve", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let summary = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{summary}");
    assert!(summary.contains("not available yet"), "{summary}");
    assert!(
        summary.contains("history: 0 changes stored") && !summary.contains(" 0 dropped (shutdown)"),
        "{summary}"
    );
}
