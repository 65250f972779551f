#!/usr/bin/env bash
# Cuts the sample clip out of OpenCV's vtest.avi:  samples/make_clip.sh path/to/vtest.avi
set -euo pipefail
ffmpeg -loglevel error -y -i "$1" -frames:v 400 -c:v libx264 -preset veryslow -crf 24 -pix_fmt yuv420p -movflags +faststart -an "$(dirname "$0")/pets2009-s2l1.mp4"
