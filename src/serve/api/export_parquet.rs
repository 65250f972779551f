//! Apache Parquet: a track a row, in groups of rows.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::serve::api::track_export::TrackExport;
use crate::store::query::TrackDetail;

/// Rows of a group.
const GROUP: usize = 5000;

/// The columns. Times are UTC; `path` is JSON, [[pts, x, y], …].
const SCHEMA: &str = "
message tracks {
    required binary run (STRING);
    required binary camera (STRING);
    required int64 id;
    required int64 first_time (TIMESTAMP(MILLIS, true));
    required int64 last_time (TIMESTAMP(MILLIS, true));
    required double first;
    required double last;
    required double duration;
    required int32 hits;
    required boolean ended;
    optional binary identity (STRING);
    optional double similarity;
    required binary zones (STRING);
    required binary path (STRING);
}";

/// Writes a Parquet file.
pub(super) struct ParquetExport<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    rows: Vec<TrackDetail>,
}

impl<W: Write + Send> ParquetExport<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When writing fails.
    pub fn new(out: W) -> io::Result<Self> {
        let schema = parse_message_type(SCHEMA).map_err(io::Error::other)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties));
        Ok(ParquetExport {
            writer: writer.map_err(io::Error::other)?,
            rows: Vec::new(),
        })
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group().map_err(io::Error::other)?;
        let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
        let path = |t: &TrackDetail| serde_json::to_string(&t.path).unwrap_or_default();
        column::<ByteArrayType, _>(
            &mut group,
            &values(&rows, |t| text(&t.summary.run.to_string())),
            None,
        )?;
        column::<ByteArrayType, _>(
            &mut group,
            &values(&rows, |t| text(&t.summary.camera)),
            None,
        )?;
        column::<Int64Type, _>(&mut group, &values(&rows, |t| t.summary.id as i64), None)?;
        column::<Int64Type, _>(
            &mut group,
            &values(&rows, |t| t.summary.first_time.0.as_millisecond()),
            None,
        )?;
        column::<Int64Type, _>(
            &mut group,
            &values(&rows, |t| t.summary.last_time.0.as_millisecond()),
            None,
        )?;
        column::<DoubleType, _>(&mut group, &values(&rows, |t| t.summary.first), None)?;
        column::<DoubleType, _>(&mut group, &values(&rows, |t| t.summary.last), None)?;
        column::<DoubleType, _>(&mut group, &values(&rows, |t| t.summary.duration), None)?;
        column::<Int32Type, _>(&mut group, &values(&rows, |t| t.summary.hits as i32), None)?;
        column::<BoolType, _>(&mut group, &values(&rows, |t| t.summary.ended), None)?;
        let identities = rows.iter().filter_map(|t| t.summary.identity.as_ref());
        let names: Vec<ByteArray> = identities.clone().map(|i| text(&i.name)).collect();
        let similarities: Vec<f64> = identities.map(|i| i.similarity).collect();
        // Level 1: the row has a value.
        let levels = values(&rows, |t| i16::from(t.summary.identity.is_some()));
        column::<ByteArrayType, _>(&mut group, &names, Some(&levels))?;
        column::<DoubleType, _>(&mut group, &similarities, Some(&levels))?;
        let zones = values(&rows, |t| text(&t.zones.join(" ")));
        column::<ByteArrayType, _>(&mut group, &zones, None)?;
        let paths = values(&rows, |t| text(&path(t)));
        column::<ByteArrayType, _>(&mut group, &paths, None)?;
        group.close().map_err(io::Error::other)?;
        Ok(())
    }
}

/// A value of each row.
fn values<T>(rows: &[TrackDetail], of: impl Fn(&TrackDetail) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// Writes the next column of a group.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> io::Result<()> {
    let column = group.next_column().map_err(io::Error::other)?;
    let mut column = column.ok_or_else(|| io::Error::other("more columns than the schema has"))?;
    let typed = column.typed::<T>();
    typed
        .write_batch(values, levels, None)
        .map_err(io::Error::other)?;
    column.close().map_err(io::Error::other)
}

impl<W: Write + Send> TrackExport for ParquetExport<W> {
    fn track(&mut self, track: &TrackDetail) -> io::Result<()> {
        self.rows.push(track.clone());
        if self.rows.len() >= GROUP {
            self.write_group()
        } else {
            Ok(())
        }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.write_group()?;
        self.writer.finish().map_err(io::Error::other)?;
        self.writer.inner_mut().flush()
    }
}
