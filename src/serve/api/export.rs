//! Exports tracks as a file: JSON lines, CSV, MOTChallenge or Parquet.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::serve::access::audit::{AuditAction, AuditEntry};
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::api::export_mot::MotExport;
use crate::serve::api::export_parquet::ParquetExport;
use crate::serve::api::track_export::TrackExport;
use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::query::QueryOf;
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::store::query::{Cursor, Page, TrackDetail, TrackFilter, TrackSummary};
use crate::store::{History, StoreError};
use crate::time::Timestamp;
use crate::trajectory::RunId;

/// Tracks that are read at once.
const PAGE: usize = 500;
/// Bytes that are sent at once.
const CHUNK: usize = 64 << 10;

/// Formats of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// JSON lines: a track with its path a line.
    Jsonl,
    /// Comma-separated values: a track a line, without paths.
    Csv,
    /// MOTChallenge results of one camera and run, from the stored boxes.
    Mot,
    /// Apache Parquet: a track a row.
    Parquet,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Format::Jsonl => "application/jsonl",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Mot => "text/plain; charset=utf-8",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Mot => "txt",
            Format::Parquet => "parquet",
        }
    }
}

/// Which tracks, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    /// jsonl, csv, mot or parquet.
    format: Format,
    /// Name of the camera; required for mot.
    camera: Option<String>,
    /// Tracks that were there at this time or later.
    from: Option<Timestamp>,
    /// Tracks that began before this time.
    to: Option<Timestamp>,
    /// Tracks that were in this zone.
    zone: Option<String>,
    /// Tracks with this identity.
    identity: Option<String>,
    /// Tracks of at least this duration in seconds.
    #[schemars(range(min = 0))]
    min_duration: Option<f64>,
    /// Tracks of this run; required for mot if the tracks are of several runs.
    run: Option<RunId>,
    /// Tracks of this person across cameras, by number.
    person: Option<u64>,
}

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/api/v1/export/tracks", role(Role::Operator), export)
        .documented(
            Operation::new("export", "Tracks as a file, from those that began last")
                .query::<ExportQuery>()
                .answers_of(&[
                    "application/jsonl",
                    "text/csv",
                    "text/plain",
                    "application/vnd.apache.parquet",
                ])
                .of_history(),
        )
}

/// JSON lines.
struct JsonLines<W>(W);

impl<W: Write> TrackExport for JsonLines<W> {
    fn track(&mut self, track: &TrackDetail) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, track)?;
        self.0.write_all(b"\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// Comma-separated values with a header.
struct Csv<W: Write>(csv::Writer<W>);

/// A line of CSV.
#[derive(Serialize)]
struct CsvLine<'a> {
    run: RunId,
    camera: Cow<'a, str>,
    id: u64,
    first_time: Timestamp,
    last_time: Timestamp,
    first: f64,
    last: f64,
    duration: f64,
    hits: u32,
    identity: Option<Cow<'a, str>>,
    similarity: Option<f64>,
    zones: String,
    ended: bool,
}

/// A text that spreadsheets do not take for a formula: an apostrophe before characters with which
/// formulas begin.
fn as_text(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

impl<W: Write> TrackExport for Csv<W> {
    fn track(&mut self, track: &TrackDetail) -> io::Result<()> {
        let TrackDetail {
            summary: t, zones, ..
        } = track;
        let line = CsvLine {
            run: t.run,
            camera: as_text(&t.camera),
            id: t.id,
            first_time: t.first_time,
            last_time: t.last_time,
            first: t.first,
            last: t.last,
            duration: t.duration,
            hits: t.hits,
            identity: t.identity.as_ref().map(|i| as_text(&i.name)),
            similarity: t.identity.as_ref().map(|i| i.similarity),
            zones: as_text(&zones.join(" ")).into_owned(),
            ended: t.ended,
        };
        self.0.serialize(line).map_err(io::Error::other)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// Sends what is written as chunks of the answer. Fails when the client has disconnected.
struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Bytes::copy_from_slice(bytes);
        let sent = self.0.blocking_send(Ok(chunk));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn export(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    QueryOf(query): QueryOf<ExportQuery>,
) -> Result<Response, Problem> {
    let format = query.format;
    let filter = TrackFilter {
        camera: query.camera,
        from: query.from,
        to: query.to,
        zone: query.zone,
        identity: query.identity,
        min_duration: query.min_duration,
        run: query.run,
        person: query.person,
    };
    if format == Format::Mot && filter.camera.is_none() {
        return Err(Problem::field(
            "camera",
            "MOTChallenge results are of one camera",
        ));
    }
    // The first page is read before the answer begins, so that errors have their status.
    let (history, asked) = (service.history()?.clone(), filter.clone());
    let first = service.ask(move |h| {
        let runs = if format == Format::Mot {
            runs(h, &asked)?
        } else {
            Vec::new()
        };
        Ok((h.tracks(&asked, None, PAGE)?, runs))
    });
    let (first, runs) = first.await?;
    if runs.len() > 1 {
        let runs = runs
            .iter()
            .map(RunId::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let detail =
            format!("MOTChallenge results are of one run, and these tracks are of the runs {runs}");
        return Err(Problem::field(
            "run",
            detail.chars().take(1000).collect::<String>(),
        ));
    }
    let entry = AuditEntry::new(AuditAction::Export)
        .by(&principal)
        .from(&client);
    let camera = filter.camera.as_deref().unwrap_or("all cameras");
    let object = format!("tracks of {camera} as {}", format.extension());
    service.access.audit().record(entry.on(object));
    let (tx, rx) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let chunks = BufWriter::with_capacity(CHUNK, Chunks(tx.clone()));
        if let Err(error) = write(&history, &filter, first, format, chunks) {
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::error!(%error, "an export of tracks failed");
            }
            let _ = tx.blocking_send(Err(error)); // breaks the answer off
        }
    });
    let name = format!("attachment; filename=\"tracks.{}\"", format.extension());
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_string()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(rx))).into_response())
}

/// The runs of the tracks, at most two.
fn runs(history: &History, filter: &TrackFilter) -> Result<Vec<RunId>, StoreError> {
    let mut found: Vec<RunId> = Vec::new();
    let mut cursor = None;
    loop {
        let page = history.tracks(filter, cursor, PAGE)?;
        for track in &page.items {
            if !found.contains(&track.run) {
                found.push(track.run);
            }
        }
        cursor = page.next;
        if cursor.is_none() || found.len() > 1 {
            return Ok(found);
        }
    }
}

/// Writes all tracks of a filter, of which `page` is the first page.
fn write(
    history: &History,
    filter: &TrackFilter,
    mut page: Page<TrackSummary>,
    format: Format,
    out: BufWriter<Chunks>,
) -> io::Result<()> {
    let mut export: Box<dyn TrackExport> = match format {
        Format::Jsonl => Box::new(JsonLines(out)),
        Format::Csv => Box::new(Csv(csv::Writer::from_writer(out))),
        Format::Mot => Box::new(MotExport::new(out)),
        Format::Parquet => Box::new(ParquetExport::new(out)?),
    };
    loop {
        for t in &page.items {
            let track = history.track(t.run, &t.camera, t.id);
            // Absent: it has been deleted in the meantime.
            if let Some(track) = track.map_err(io::Error::other)? {
                export.track(&track)?;
            }
        }
        let Some(cursor): Option<Cursor> = page.next else {
            return export.finish();
        };
        page = history
            .tracks(filter, Some(cursor), PAGE)
            .map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_of_a_text_is_a_formula() {
        for formula in ["=1+1", "+1", "-x", "@a", "\t=1"] {
            assert_eq!(as_text(formula), format!("'{formula}"));
        }
        assert_eq!(as_text("gate-1 =x"), "gate-1 =x");
    }
}
