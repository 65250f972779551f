//! Opening of the database: creation, permissions, and the tables' version.

use std::path::Path;

use crate::sink::private;
use crate::store::config::Location;
use crate::store::database::Database;
use crate::store::error::StoreError;
use crate::store::migrations;
use crate::store::postgres::Postgres;
use crate::store::sqlite::Sqlite;

impl Location {
    /// Opens a connection to a database that [`Location::prepare`] has brought up to date.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub fn open(&self) -> Result<Box<dyn Database>, StoreError> {
        Ok(match self {
            Location::File(path) => Box::new(Sqlite::open(path)?),
            Location::Server { url, ca_file } => Box::new(Postgres::open(url, ca_file.as_deref())?),
        })
    }

    /// Creates the database if it is missing, and migrates its tables. The file of SQLite is
    /// readable by its owner only.
    ///
    /// # Errors
    /// When the database cannot be opened, or is newer than this program.
    pub fn prepare(&self) -> Result<Box<dyn Database>, StoreError> {
        if let Location::File(path) = self {
            let failed = |e: std::io::Error| StoreError::Open {
                database: path.display().to_string(),
                reason: e.to_string(),
            };
            private::create_folder(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
            // SQLite creates its auxiliary files with the mode of this file.
            private::restrict(path).map_err(failed)?;
        }
        let mut db = self.open()?;
        migrations::apply(&mut *db)?;
        Ok(db)
    }

    /// The database, for messages.
    pub fn shown(&self) -> String {
        match self {
            Location::File(path) => path.display().to_string(),
            Location::Server { url, .. } => crate::store::postgres::shown(url),
        }
    }
}
