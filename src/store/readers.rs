//! Connections for questions: a bounded number, kept for the next question.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::store::config::Location;
use crate::store::database::Database;
use crate::store::error::StoreError;

/// Most questions at the same time; further ones wait.
const MOST: usize = 16;
/// Most connections that are kept.
const IDLE: usize = 4;

#[derive(Default)]
struct State {
    idle: Vec<Box<dyn Database>>,
    /// Number of questions that are being answered.
    active: usize,
    closed: bool,
}

/// The connections.
#[derive(Default)]
pub(super) struct Readers {
    state: Mutex<State>,
    answered: Condvar,
}

/// A question that is being answered; counted until it is dropped, also by a panic.
struct Turn<'a>(&'a Readers);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().active -= 1;
        self.0.answered.notify_one();
    }
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a question can be answered. Returns an idle connection too, if there is one.
    fn turn(&self) -> Result<(Turn<'_>, Option<Box<dyn Database>>), StoreError> {
        let waited = self
            .answered
            .wait_while(self.lock(), |s| s.active >= MOST && !s.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(StoreError::Unavailable(
                "the program is being stopped".into(),
            ));
        }
        state.active += 1;
        Ok((Turn(self), state.idle.pop()))
    }

    /// Answers a question; an interrupted connection is replaced once, and the question is then
    /// asked again.
    pub fn ask<T>(
        &self,
        location: &Location,
        question: impl Fn(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (_turn, idle) = self.turn()?;
        if let Some(mut db) = idle {
            match question(&mut *db) {
                Err(e) if e.is_transient() => {}
                answer => {
                    self.keep(db);
                    return answer;
                }
            }
        }
        let mut db = location.open()?;
        let answer = question(&mut *db);
        self.keep(db);
        answer
    }

    /// Makes a change, never twice: after an interruption nobody knows whether it was committed, and
    /// the caller gets the error. An idle connection that was interrupted before is replaced.
    pub fn change<T>(
        &self,
        location: &Location,
        change: impl FnOnce(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (_turn, idle) = self.turn()?;
        let usable = idle.and_then(|mut db| db.query("SELECT 1", &[]).is_ok().then_some(db));
        let mut db = match usable {
            Some(db) => db,
            None => location.open()?,
        };
        let made = change(&mut *db);
        self.keep(db);
        made
    }

    fn keep(&self, db: Box<dyn Database>) {
        let mut state = self.lock();
        if !state.closed && state.idle.len() < IDLE {
            state.idle.push(db);
        }
    }

    /// Answers no more questions, and closes the idle connections. A connection to PostgreSQL must
    /// not be closed on a thread of an async runtime, so that a thread of their own closes them.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        self.answered.notify_all();
        if !idle.is_empty() {
            // Its result is not needed: closing reports no errors.
            let _ = std::thread::spawn(move || drop(idle)).join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn questions_beyond_the_limit_wait_and_a_panic_frees_its_place() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let location = Location::File(file.path().into());
        let (readers, now, most) = (Readers::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let panicking = std::panic::AssertUnwindSafe(|| {
            readers.ask::<()>(&location, |_| panic!("a part of the test"))
        });
        assert!(std::panic::catch_unwind(panicking).is_err());
        std::thread::scope(|scope| {
            for _ in 0..3 * MOST {
                scope.spawn(|| {
                    readers.ask(&location, |db| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let rows = db.query("SELECT 1", &[])?;
                        now.fetch_sub(1, Ordering::SeqCst);
                        rows[0].int(0)
                    })
                });
            }
        });
        assert!(most.into_inner() <= MOST);
        assert_eq!(readers.lock().active, 0);
        assert!((1..=IDLE).contains(&readers.lock().idle.len()));
        readers.close();
        assert!(readers.ask(&location, |_| Ok(())).is_err());
    }

    #[test]
    fn a_change_whose_answer_is_lost_is_not_made_again() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let location = Location::File(file.path().into());
        let readers = Readers::default();
        let created = readers.change(&location, |db| db.batch("CREATE TABLE made (x INTEGER)"));
        created.expect("a table");
        assert_eq!(readers.lock().idle.len(), 1, "as after any question");
        // Regression: an idle connection's error made the change run again.
        let lost = readers.change(&location, |db| {
            db.execute("INSERT INTO made VALUES (1)", &[])?;
            Err::<(), _>(StoreError::Unavailable("the answer is lost".into()))
        });
        assert!(matches!(lost, Err(StoreError::Unavailable(_))));
        let made = readers.ask(&location, |db| {
            let rows = db.query("SELECT count(*) FROM made", &[])?;
            rows[0].int(0)
        });
        assert_eq!(made.expect("readable"), 1);
    }
}
