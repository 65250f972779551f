//! The two databases behind one trait: a statement with values in, rows of values out. All other
//! files of this module use SQL that SQLite and PostgreSQL share, with `?` for values.

use crate::store::error::StoreError;

/// A value of a statement or a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Absent.
    Null,
    /// A whole number; a time is in milliseconds since 1970.
    Int(i64),
    /// A number.
    Real(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An embedding. SQLite holds it as float32, little endian; PostgreSQL as pgvector's `vector`.
    Vector(Vec<f32>),
}

impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Value::Int(v)
    }
}
impl From<f64> for Value {
    fn from(v: f64) -> Self {
        Value::Real(v)
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Value::Text(v.into())
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}

/// A row of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(pub Vec<Value>);

impl Row {
    fn wrong<T>(&self, column: usize, expected: &str) -> Result<T, StoreError> {
        let found = match self.0.get(column) {
            None => "no column",
            Some(Value::Null) => "nothing",
            Some(Value::Int(_)) => "a whole number",
            Some(Value::Real(_)) => "a number",
            Some(Value::Text(_)) => "a text",
            Some(Value::Bytes(_)) => "bytes",
            Some(Value::Vector(_)) => "a vector",
        };
        Err(StoreError::Value(format!(
            "column {column} holds {found} instead of {expected}"
        )))
    }

    /// The whole number in a column.
    ///
    /// # Errors
    /// When the column holds something else.
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        match self.0.get(column) {
            Some(Value::Int(v)) => Ok(*v),
            _ => self.wrong(column, "a whole number"),
        }
    }

    /// The whole number in a column that may be absent.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn int_if_any(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            _ => self.int(column).map(Some),
        }
    }

    /// The number in a column.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn real(&self, column: usize) -> Result<f64, StoreError> {
        match self.0.get(column) {
            Some(Value::Real(v)) => Ok(*v),
            Some(Value::Int(v)) => Ok(*v as f64),
            _ => self.wrong(column, "a number"),
        }
    }

    /// The number in a column that may be absent.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn real_if_any(&self, column: usize) -> Result<Option<f64>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            _ => self.real(column).map(Some),
        }
    }

    /// The text in a column.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn text(&self, column: usize) -> Result<String, StoreError> {
        match self.0.get(column) {
            Some(Value::Text(v)) => Ok(v.clone()),
            _ => self.wrong(column, "a text"),
        }
    }

    /// The text in a column that may be absent.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn text_if_any(&self, column: usize) -> Result<Option<String>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            _ => self.text(column).map(Some),
        }
    }

    /// The bytes in a column.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn bytes(&self, column: usize) -> Result<Vec<u8>, StoreError> {
        match self.0.get(column) {
            Some(Value::Bytes(v)) => Ok(v.clone()),
            _ => self.wrong(column, "bytes"),
        }
    }

    /// The embedding in a column.
    ///
    /// # Errors
    /// As [`Row::int`].
    pub fn vector(&self, column: usize) -> Result<Vec<f32>, StoreError> {
        match self.0.get(column) {
            Some(Value::Vector(v)) => Ok(v.clone()),
            Some(Value::Bytes(v)) => Ok(floats(v)),
            _ => self.wrong(column, "a vector"),
        }
    }
}

/// The float32 numbers, little endian, in `bytes`; an incomplete last one is left out.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let (whole, _) = bytes.as_chunks::<4>();
    whole.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Where the databases differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL with pgvector.
    Postgres,
}

/// A connection to a database.
pub trait Database: Send {
    /// Which database it is.
    fn dialect(&self) -> Dialect;

    /// Runs a statement that returns rows; `?` stands for the values, in order.
    ///
    /// # Errors
    /// When the statement or the connection fails.
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// Runs a statement; returns the number of rows that it changed.
    ///
    /// # Errors
    /// As [`Database::query`].
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError>;

    /// Runs several statements without values, separated by semicolons.
    ///
    /// # Errors
    /// As [`Database::query`].
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;
}

/// Takes a lock of PostgreSQL until the transaction ends; an SQLite file has one writer anyway.
///
/// # Errors
/// When the database fails.
pub(super) fn lock(db: &mut dyn Database, key: i64) -> Result<(), StoreError> {
    if db.dialect() == Dialect::Postgres {
        db.query(
            "SELECT 1 FROM (SELECT pg_advisory_xact_lock(CAST(? AS BIGINT))) AS locked",
            &[key.into()],
        )?;
    }
    Ok(())
}

/// Empties the write-ahead log of SQLite, which holds deleted rows until then. Returns whether it is
/// empty: other connections that read or write for longer than [`Database::query`] waits prevent
/// it. Does nothing with PostgreSQL.
///
/// # Errors
/// When the database fails.
pub(super) fn empty_log(db: &mut dyn Database) -> Result<bool, StoreError> {
    if db.dialect() == Dialect::Postgres {
        return Ok(true);
    }
    let rows = db.query("PRAGMA wal_checkpoint(TRUNCATE)", &[])?;
    // The first column: whether other connections prevented it.
    rows.first().map_or(Ok(false), |row| Ok(row.int(0)? == 0))
}

/// Runs `work` in a transaction. It is committed if `work` succeeds, and undone otherwise.
///
/// # Errors
/// The error of `work`, or of beginning or committing the transaction.
pub fn transaction<T>(
    db: &mut dyn Database,
    work: impl FnOnce(&mut dyn Database) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    db.batch(match db.dialect() {
        // Without IMMEDIATE a transaction that begins by reading can fail when it begins to write.
        Dialect::Sqlite => "BEGIN IMMEDIATE",
        Dialect::Postgres => "BEGIN",
    })?;
    let done = work(db).and_then(|value| db.batch("COMMIT").map(|()| value));
    if done.is_err() {
        let _ = db.batch("ROLLBACK"); // the error of `work` says more
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpected_value_is_named_with_its_column() {
        let row = Row(vec![Value::Text("x".into()), Value::Null]);
        let says = row.int(0).expect_err("a text").to_string();
        assert!(
            says.contains("column 0") && says.contains("a text"),
            "{says}"
        );
        assert_eq!(row.int_if_any(1).expect("absent"), None);
        assert!(row.text(2).is_err());
        let vector = Row(vec![Value::Bytes(vec![0, 0, 128, 63, 1])]);
        assert_eq!(vector.vector(0).expect("one number"), [1.0]);
    }
}
