//! The metrics of zones and lines.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::serve::metric_family::{Labels, family};
use crate::sink::counts::{Counts, ShapeKey, ZoneCounts};

/// Reads the counts of zones and lines at every scrape. A zone or line appears when it is declared,
/// or with its first event.
#[derive(Debug)]
pub(super) struct CountCollector(pub Counts);

fn labels<'a>(kind: &'static str, key: &'a ShapeKey) -> Labels<'a> {
    vec![("camera", &*key.0), (kind, &*key.1)]
}

/// Name and help of a family, whether it is a counter, and its value.
type ZoneFamily = (&'static str, &'static str, bool, fn(&ZoneCounts) -> u64);

impl Collector for CountCollector {
    fn encode(&self, mut e: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (zones, lines) = (self.0.zones(), self.0.lines());
        let zone = |value: fn(&ZoneCounts) -> u64| {
            zones
                .iter()
                .map(move |(k, c)| (labels("zone", k), value(c)))
        };
        let families: [ZoneFamily; 5] = [
            ("zone_occupancy", "People in the zone", false, |c| {
                c.occupancy
            }),
            ("zone_entries", "Entries into the zone", true, |c| c.entered),
            ("zone_exits", "Exits from the zone", true, |c| c.left),
            (
                "zone_dwells",
                "Stays in the zone that reached its dwell time",
                true,
                |c| c.dwelled,
            ),
            (
                "zone_over_limit",
                "Times that there were more people in the zone than its limit",
                true,
                |c| c.over_limit,
            ),
        ];
        for (name, help, counter, value) in families {
            family(&mut e, name, help, counter, zone(value))?;
        }
        let crossings = lines.iter().flat_map(|(k, c)| {
            let directions = [("in", c.inwards), ("out", c.outwards)];
            directions.map(|(direction, count)| {
                let mut labels = labels("line", k);
                labels.push(("direction", direction));
                (labels, count)
            })
        });
        let help = "Crossings of the line, by direction";
        family(&mut e, "line_crossings", help, true, crossings)?;
        let wrong = lines.iter().map(|(k, c)| (labels("line", k), c.wrong));
        let help = "Crossings of the line in its wrong direction";
        family(&mut e, "line_wrong_way", help, true, wrong)
    }
}
