#!/usr/bin/python3
"""Serves an H.264 video as the RTSP camera rtsp://HOST:8554/sample, from its start for each client."""
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("0.0.0.0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( filesrc location={sys.argv[1]} ! qtdemux ! h264parse ! rtph264pay name=pay0 config-interval=1 )"
)
server.get_mount_points().add_factory("/sample", factory)
server.attach(None)
GLib.MainLoop().run()
