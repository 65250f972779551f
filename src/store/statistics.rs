//! Counts per span of time: people, crossings of lines, occupancy of zones.

use std::collections::{BTreeMap, HashMap};

use crate::store::condition::Conditions;
use crate::store::database::Database;
use crate::store::error::StoreError;
use crate::store::query::{Bucket, ZoneCounts};
use crate::store::rows::milliseconds;
use crate::store::tracks::{camera_id, longest};
use crate::time::Timestamp;

/// Most buckets of an answer.
pub const MAX_BUCKETS: i64 = 10_000;
/// How long before the first bucket, in milliseconds, the last event of a zone is looked for.
const LOOK_BACK: i64 = 86_400_000;

/// What is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct StatisticsQuery {
    /// Begin of the first bucket.
    pub from: Timestamp,
    /// End of the last bucket, which may be shorter than the others.
    pub to: Timestamp,
    /// Length of a bucket in seconds, at least 1.
    pub bucket: f64,
    /// Name of the camera; absent: all.
    pub camera: Option<String>,
    /// Name of the zone or line; absent: all.
    pub name: Option<String>,
}

/// The buckets' limits in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
    bucket: i64,
}

impl Span {
    fn of(query: &StatisticsQuery) -> Result<Self, StoreError> {
        let wrong = |argument, reason: &str| StoreError::Argument {
            argument,
            reason: reason.into(),
        };
        if !(1.0..=1e9).contains(&query.bucket) {
            return Err(wrong("bucket", "it must be from 1 to 1000000000 seconds"));
        }
        let span = Span {
            from: milliseconds(query.from),
            to: milliseconds(query.to),
            bucket: (1000.0 * query.bucket) as i64,
        };
        if span.to <= span.from {
            return Err(wrong("to", "it must be after `from`"));
        }
        if span.count() > MAX_BUCKETS {
            return Err(StoreError::Argument {
                argument: "bucket",
                reason: format!("it makes more than {MAX_BUCKETS} buckets between `from` and `to`"),
            });
        }
        Ok(span)
    }

    fn count(self) -> i64 {
        (self.to - self.from + self.bucket - 1) / self.bucket
    }

    fn index(self, time: i64) -> usize {
        ((time - self.from) / self.bucket).max(0) as usize
    }
}

/// Counts per bucket. If several cameras have a zone of the same name, their means are added, and
/// the maximum is the greatest of their maxima.
///
/// # Errors
/// When the buckets are invalid or more than [`MAX_BUCKETS`], or the database fails.
pub fn statistics(
    db: &mut dyn Database,
    query: &StatisticsQuery,
) -> Result<Vec<Bucket>, StoreError> {
    let span = Span::of(query)?;
    let mut buckets: Vec<Bucket> = (0..span.count())
        .map(|n| Bucket {
            start: span.from + n * span.bucket,
            ..Bucket::default()
        })
        .collect();
    let camera = match &query.camera {
        Some(name) => match camera_id(db, name)? {
            Some(id) => Some(id),
            None => return Ok(buckets),
        },
        None => None,
    };
    people(db, span, camera, &mut buckets)?;
    lines(db, span, camera, query.name.as_deref(), &mut buckets)?;
    zones(db, span, camera, query.name.as_deref(), &mut buckets)?;
    Ok(buckets)
}

fn people(
    db: &mut dyn Database,
    span: Span,
    camera: Option<i64>,
    buckets: &mut [Bucket],
) -> Result<(), StoreError> {
    let mut all = Conditions::default();
    if let Some(camera) = camera {
        all.with("camera_id = ?", camera);
    }
    let margin = longest(db)? + 60_000;
    all.with("first_time >= ?", span.from.saturating_sub(margin));
    all.with("first_time < ?", span.to);
    all.with("last_time >= ?", span.from);
    let sql = format!(
        "SELECT first_time, last_time FROM tracks WHERE {}",
        all.text()
    );
    let mut present = Vec::new();
    for row in db.query(&sql, &all.values)? {
        let (first, last) = (row.int(0)?, row.int(1)?);
        if first >= span.from
            && let Some(bucket) = buckets.get_mut(span.index(first))
        {
            bucket.tracks += 1;
        }
        present.push((first, last));
    }
    for (bucket, most) in buckets.iter_mut().zip(most_at_once(&present, span)) {
        bucket.people_max = most;
    }
    Ok(())
}

/// The largest number of these intervals (ends included) that contain one moment, by bucket.
fn most_at_once(present: &[(i64, i64)], span: Span) -> Vec<u32> {
    let mut changes: Vec<(i64, i32)> = present
        .iter()
        .flat_map(|(first, last)| [(*first, 1), (last.max(first) + 1, -1)])
        .collect();
    changes.sort_unstable(); // of changes at the same time, those that end come first
    let (mut next, mut now) = (0, 0i32);
    let mut most = Vec::with_capacity(span.count() as usize);
    for n in 0..span.count() {
        let start = span.from + n * span.bucket;
        while next < changes.len() && changes[next].0 <= start {
            now += changes[next].1;
            next += 1;
        }
        let mut max = now;
        while next < changes.len() && changes[next].0 < (start + span.bucket).min(span.to) {
            now += changes[next].1;
            max = max.max(now);
            next += 1;
        }
        most.push(max.max(0) as u32);
    }
    most
}

fn lines(
    db: &mut dyn Database,
    span: Span,
    camera: Option<i64>,
    name: Option<&str>,
    buckets: &mut [Bucket],
) -> Result<(), StoreError> {
    let mut all = Conditions::default();
    all.with("kind = ?", "line");
    restrict(&mut all, span.from, span.to, camera, name);
    let sql = format!(
        "SELECT name, action, (time - ?) / ?, count(*) FROM events WHERE {} GROUP BY 1, 2, 3",
        all.text()
    );
    let mut values = vec![span.from.into(), span.bucket.into()];
    values.append(&mut all.values);
    for row in db.query(&sql, &values)? {
        let Some(bucket) = buckets.get_mut(row.int(2)?.max(0) as usize) else {
            continue;
        };
        let counts = bucket.lines.entry(row.text(0)?).or_default();
        match row.text(1)?.as_str() {
            "in" => counts.inward += row.int(3)? as u64,
            "out" => counts.outward += row.int(3)? as u64,
            _ => {}
        }
    }
    Ok(())
}

fn restrict(all: &mut Conditions, from: i64, to: i64, camera: Option<i64>, name: Option<&str>) {
    all.with("time >= ?", from);
    all.with("time < ?", to);
    if let Some(camera) = camera {
        all.with("camera_id = ?", camera);
    }
    if let Some(name) = name {
        all.with("name = ?", name);
    }
}

/// The number of people in a zone from a time on.
#[derive(Debug, Clone, Copy)]
struct Step {
    time: i64,
    occupancy: u32,
    /// Latest time until which it holds: the run's last heartbeat.
    until: i64,
}

fn zones(
    db: &mut dyn Database,
    span: Span,
    camera: Option<i64>,
    name: Option<&str>,
    buckets: &mut [Bucket],
) -> Result<(), StoreError> {
    let mut alive = HashMap::new();
    for row in db.query("SELECT id, alive FROM runs", &[])? {
        alive.insert(row.int(0)?, row.int(1)?);
    }
    let mut steps: BTreeMap<(i64, String), Vec<Step>> = BTreeMap::new();
    let mut before = Conditions::default();
    before.with("kind = ?", "zone");
    restrict(&mut before, span.from - LOOK_BACK, span.from, camera, name);
    let last = format!(
        "SELECT camera_id, name, run_id, time, occupancy, action FROM events WHERE id IN (
             SELECT max(id) FROM events WHERE occupancy IS NOT NULL AND {}
             GROUP BY camera_id, name)",
        before.text()
    );
    let mut during = Conditions::default();
    during.with("kind = ?", "zone");
    restrict(&mut during, span.from, span.to, camera, name);
    let within = format!(
        "SELECT camera_id, name, run_id, time, occupancy, action FROM events
         WHERE {} ORDER BY time, id",
        during.text()
    );
    let mut rows = db.query(&last, &before.values)?;
    rows.append(&mut db.query(&within, &during.values)?);
    for row in rows {
        let (zone, run, time) = (row.text(1)?, row.int(2)?, row.int(3)?);
        if time >= span.from
            && row.text(5)? == "enter"
            && let Some(bucket) = buckets.get_mut(span.index(time))
        {
            bucket.zones.entry(zone.clone()).or_default().entered += 1;
        }
        if let Some(occupancy) = row.int_if_any(4)? {
            steps.entry((row.int(0)?, zone)).or_default().push(Step {
                time,
                occupancy: occupancy.clamp(0, i64::from(u32::MAX)) as u32,
                until: alive.get(&run).copied().unwrap_or(time).max(time),
            });
        }
    }
    for ((_, zone), steps) in steps {
        for (n, step) in steps.iter().enumerate() {
            let next = steps.get(n + 1).map_or(span.to, |s| s.time);
            spread(
                step,
                next.min(step.until).min(span.to),
                &zone,
                span,
                buckets,
            );
        }
    }
    Ok(())
}

/// Adds a step, which ends at `end`, to the buckets that it reaches into.
fn spread(step: &Step, end: i64, zone: &str, span: Span, buckets: &mut [Bucket]) {
    let begin = step.time.max(span.from);
    if step.time < span.from && end <= span.from {
        return;
    }
    let last = span.index(end.max(begin));
    for bucket in buckets.iter_mut().take(last + 1).skip(span.index(begin)) {
        let stop = (bucket.start + span.bucket).min(span.to);
        let covered = (end.min(stop) - begin.max(bucket.start)).max(0);
        // A step of length zero adds nothing to the mean, but counts for the maximum.
        if covered == 0 && begin < bucket.start {
            continue;
        }
        let counts: &mut ZoneCounts = bucket.zones.entry(zone.into()).or_default();
        let length = (stop - bucket.start).max(1);
        counts.mean += f64::from(step.occupancy) * covered as f64 / length as f64;
        counts.max = counts.max.max(step.occupancy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span {
        from: 1000,
        to: 4000,
        bucket: 1000,
    };

    #[test]
    fn the_most_people_at_once_are_found_by_bucket() {
        let present = [
            (0, 1500),
            (1200, 1300),
            (1301, 1400),
            (1500, 2999),
            (3500, 9000),
        ];
        assert_eq!(most_at_once(&present, SPAN), [2, 1, 1]);
        assert_eq!(most_at_once(&[], SPAN), [0, 0, 0]);
        assert_eq!(most_at_once(&[(0, 9000)], SPAN), [1, 1, 1]);
    }

    #[test]
    fn a_step_of_occupancy_is_spread_over_the_buckets() {
        let mut buckets: Vec<Bucket> = (0..3)
            .map(|n| Bucket {
                start: 1000 * (n + 1),
                ..Bucket::default()
            })
            .collect();
        let step = |time, occupancy| Step {
            time,
            occupancy,
            until: i64::MAX,
        };
        spread(&step(500, 2), 1500, "a", SPAN, &mut buckets);
        spread(&step(1500, 4), 3000, "a", SPAN, &mut buckets);
        spread(&step(3000, 0), 4000, "a", SPAN, &mut buckets);
        let of = |n: usize| (buckets[n].zones["a"].mean, buckets[n].zones["a"].max);
        assert_eq!(of(0), (3.0, 4));
        assert_eq!(of(1), (4.0, 4));
        assert_eq!(of(2), (0.0, 0));
    }
}
