#!/usr/bin/env python3
"""Writes monitoring/grafana-dashboard.json from the list of panels below.

    python3 scripts/grafana_dashboard.py
"""
import json
import pathlib

# Row title, then its panels: title, unit, kind, and (PromQL, legend) pairs.
ROWS = [
    ("Cameras", [
        ("Cameras online", "short", "stat", [("sum(twintrack_camera_up)", "online"), ("count(twintrack_camera_up)", "all")]),
        ("Frames tracked per second", "short", "timeseries", [("sum by (camera) (rate(twintrack_frames_tracked_total[1m]))", "{{camera}}")]),
        ("Frames dropped per second, by cause", "short", "timeseries", [("sum by (camera, cause) (rate(twintrack_frames_dropped_total[1m])) > 0", "{{camera}}: {{cause}}")]),
        ("Latency, 95th percentile", "s", "timeseries", [("histogram_quantile(0.95, sum by (le, camera) (rate(twintrack_latency_seconds_bucket[5m])))", "{{camera}}")]),
        ("Reconnects and failures per hour", "short", "timeseries", [("increase(twintrack_camera_reconnects_total[1h])", "{{camera}}: reconnects"), ("increase(twintrack_camera_failures_total[1h])", "{{camera}}: failures")]),
    ]),
    ("People", [
        ("People present", "short", "timeseries", [("twintrack_people_present", "{{camera}}")]),
        ("New tracks per minute", "short", "timeseries", [("60 * rate(twintrack_people_total[5m])", "{{camera}}")]),
        ("People in zones", "short", "timeseries", [("twintrack_zone_occupancy", "{{camera}}/{{zone}}")]),
        ("Line crossings per hour", "short", "timeseries", [("increase(twintrack_line_crossings_total[1h])", "{{camera}}/{{line}} {{direction}}")]),
        ("Entries into zones per hour", "short", "timeseries", [("increase(twintrack_zone_entries_total[1h])", "{{camera}}/{{zone}}")]),
        ("Times over a zone's limit per hour", "short", "timeseries", [("increase(twintrack_zone_over_limit_total[1h])", "{{camera}}/{{zone}}")]),
    ]),
    ("Delivery and process", [
        ("Events in spools", "short", "timeseries", [("twintrack_spool_events", "{{sink}}")]),
        ("Events delivered per second", "short", "timeseries", [("rate(twintrack_sink_delivered_total[1m])", "{{sink}}")]),
        ("Events lost or refused per hour", "short", "timeseries", [("increase(twintrack_sink_lost_total[1h])", "{{sink}}: lost"), ("increase(twintrack_sink_refused_total[1h])", "{{sink}}: refused")]),
        ("Live clients", "short", "timeseries", [("twintrack_live_clients", "clients"), ("rate(twintrack_live_missed_total[1m])", "events missed per second")]),
        ("Memory", "bytes", "timeseries", [("twintrack_process_memory_bytes", "resident")]),
        ("Threads and files", "short", "timeseries", [("twintrack_process_threads", "threads"), ("twintrack_process_open_files", "open files")]),
    ]),
]

SOURCE = {"type": "prometheus", "uid": "${source}"}


def panel(number, place, title, unit, kind, queries):
    targets = [{"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
               for i, (expr, legend) in enumerate(queries)]
    return {"id": number, "type": kind, "title": title, "datasource": SOURCE, "gridPos": place,
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "targets": targets}


panels, number, y = [], 1, 0
for title, row in ROWS:
    panels.append({"id": number, "type": "row", "title": title, "collapsed": False,
                   "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
    number, y = number + 1, y + 1
    for i, (name, unit, kind, queries) in enumerate(row):
        place = {"x": 8 * (i % 3), "y": y + 8 * (i // 3), "w": 8, "h": 8}
        panels.append(panel(number, place, name, unit, kind, queries))
        number += 1
    y += 8 * ((len(row) + 2) // 3)
dashboard = {
    "title": "twintrack", "uid": "twintrack", "tags": ["twintrack"], "schemaVersion": 39, "version": 1,
    "editable": True, "timezone": "browser", "refresh": "10s", "time": {"from": "now-6h", "to": "now"},
    "templating": {"list": [{"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}]},
    "annotations": {"list": []}, "panels": panels,
}
out = pathlib.Path(__file__).parent.parent / "monitoring/grafana-dashboard.json"
out.write_text(json.dumps(dashboard, indent=1) + "\n")
