//! Determines from a video file's structure whether it was cut short and whether it stores its
//! number of frames.
//!
//! If a container stores no number of frames, FFmpeg estimates one (duration times a guessed rate),
//! which says nothing about missing frames. The sizes that containers store for their parts show a
//! missing end: a part that reaches beyond the end of the file was cut.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Completeness of a video file, as far as its container tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Evidence that the file's end is missing; absent if it is complete or unknown.
    pub cut: Option<String>,
    /// Whether the container stores the number of frames that a player shows.
    pub stores_count: bool,
}

/// Inspects MP4, MOV, Matroska, WebM, AVI and MPEG transport streams; nothing is known about
/// others.
///
/// # Errors
/// If the file cannot be read.
pub fn look(path: &Path) -> io::Result<Container> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let head = read_at(&mut file, 0, 12)?;
    match head.as_slice() {
        [_, _, _, _, a, b, c, d, ..]
            if [
                b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp",
            ]
            .contains(&&[*a, *b, *c, *d]) =>
        {
            mp4(&mut file, length)
        }
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Ok(Container {
            cut: matroska(&mut file, length)?,
            stores_count: false,
        }),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' '] => Ok(Container {
            cut: avi(&mut file, length)?,
            stores_count: false,
        }),
        [0x47, ..] => Ok(Container {
            cut: transport_stream(&mut file, length)?,
            stores_count: false,
        }),
        _ => Ok(Container::default()),
    }
}

/// Reads `count` bytes at offset `at`; fewer at the end of the file.
fn read_at(file: &mut File, at: u64, count: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Describes a part of `size` bytes at offset `at` that exceeds the file's `length`.
fn beyond(at: u64, size: u64, length: u64) -> Option<String> {
    let end = at.saturating_add(size);
    (end > length).then(|| format!("{length} of {end} bytes are present"))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// A box of ISO/IEC 14496-12: its type, the offsets of its content and of its end.
struct Part {
    kind: [u8; 4],
    content: u64,
    end: u64,
}

/// The box at offset `at`, if there is one. A size of 0 means up to `end`.
fn part(file: &mut File, at: u64, end: u64) -> io::Result<Option<Part>> {
    let head = read_at(file, at, 16)?;
    let Some((size, kind)) = head.get(..8).map(|h| h.split_at(4)) else {
        return Ok(None);
    };
    let kind: [u8; 4] = kind.try_into().expect("four bytes are left");
    let (content, size) = match number(size) {
        0 => (8, end - at),
        1 if head.len() == 16 => (16, number(&head[8..])),
        size => (8, size),
    };
    let is_box = size >= content
        && kind
            .iter()
            .all(|b| b.is_ascii_graphic() || *b == b' ' || *b == 0xa9);
    Ok(is_box.then(|| Part {
        kind,
        content: at + content,
        end: at.saturating_add(size),
    }))
}

fn mp4(file: &mut File, length: u64) -> io::Result<Container> {
    let (mut at, mut index, mut fragmented) = (0, None, false);
    while at < length {
        let Some(part) = part(file, at, length)? else {
            break;
        };
        if let Some(cut) = beyond(at, part.end - at, length) {
            return Ok(Container {
                cut: Some(cut),
                stores_count: false,
            });
        }
        fragmented |= &part.kind == b"moof";
        if &part.kind == b"moov" {
            index = Some((part.content, part.end));
        }
        at = part.end;
    }
    // Fragments add frames that the index does not count; an edit list hides some.
    let stores_count = match index {
        Some((from, to)) if !fragmented => !shows_a_part(file, from, to, 0)?,
        _ => false,
    };
    Ok(Container {
        cut: None,
        stores_count,
    })
}

/// Whether the index announces fragments, or an edit list shows only a part of a track.
fn shows_a_part(file: &mut File, mut at: u64, to: u64, depth: u32) -> io::Result<bool> {
    while at < to {
        let Some(part) = part(file, at, to)? else {
            break;
        };
        let inside = match &part.kind {
            b"mvex" => return Ok(true),
            b"trak" | b"edts" if depth < 3 => {
                shows_a_part(file, part.content, part.end.min(to), depth + 1)?
            }
            b"elst" => trims(&read_at(
                file,
                part.content,
                (part.end - part.content).min(1 << 16),
            )?),
            _ => false,
        };
        if inside {
            return Ok(true);
        }
        at = part.end;
    }
    Ok(false)
}

/// Whether an edit list does more than delay a track or skip the few frames of B-frame reordering.
fn trims(list: &[u8]) -> bool {
    let Some((head, entries)) = list.split_at_checked(8) else {
        return false;
    };
    let long = head[0] == 1;
    let (width, half) = if long { (20, 8) } else { (12, 4) };
    let starts: Vec<i64> = entries
        .chunks_exact(width)
        .map(|e| {
            if long {
                number(&e[half..2 * half]) as i64
            } else {
                i64::from(number(&e[half..2 * half]) as u32 as i32)
            }
        })
        .filter(|start| *start >= 0)
        .collect();
    // In ticks of the track's clock, 10,000 to 90,000 per second: 4,000 is less than half a second.
    starts.len() > 1 || starts.iter().any(|s| *s > 4000)
}

/// A variable-size integer of EBML (RFC 8794): its value (`None` if unknown) and its length in
/// bytes.
fn variable(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let all = bytes.get(..length).filter(|_| length <= 8)?;
    let mask = (1u64 << (7 * length)) - 1;
    let value = number(all) & mask;
    Some(((value != mask).then_some(value), length))
}

/// Matroska: an EBML header, then one segment whose size is stored unless it was written as a
/// stream.
fn matroska(file: &mut File, length: u64) -> io::Result<Option<String>> {
    let head = read_at(file, 4, 8)?;
    let Some((Some(size), width)) = variable(&head) else {
        return Ok(None);
    };
    let segment = 4 + width as u64 + size;
    let bytes = read_at(file, segment, 12)?;
    let Some(size) = bytes.strip_prefix(&[0x18, 0x53, 0x80, 0x67]) else {
        return Ok(None);
    };
    Ok(match variable(size) {
        Some((Some(size), width)) => beyond(segment, 4 + width as u64 + size, length),
        _ => None,
    })
}

/// AVI: a sequence of RIFF chunks. An interrupted recorder leaves a size of 0; the length is then
/// unknown.
fn avi(file: &mut File, length: u64) -> io::Result<Option<String>> {
    let mut at = 0;
    while at + 8 < length {
        let head = read_at(file, at, 8)?;
        let Some(size) = head.strip_prefix(b"RIFF").filter(|s| s.len() == 4) else {
            break;
        };
        let size = u64::from(u32::from_le_bytes(
            size.try_into().expect("four bytes, as filtered"),
        ));
        // Padding to an even size may be missing.
        if let Some(cut) = beyond(at, 8 + size, length + 1).filter(|_| size > 0) {
            return Ok(Some(cut));
        }
        if size == 0 {
            break;
        }
        at += 8 + size + size % 2;
    }
    Ok(None)
}

/// MPEG transport stream (ISO/IEC 13818-1): packets of 188 bytes. A cut between two packets cannot
/// be detected.
fn transport_stream(file: &mut File, length: u64) -> io::Result<Option<String>> {
    const PACKET: u64 = 188;
    for i in 0..4.min(length / PACKET) {
        if read_at(file, i * PACKET, 1)? != [0x47] {
            return Ok(None);
        }
    }
    let rest = length % PACKET;
    Ok((length > PACKET && rest > 0)
        .then(|| format!("its last packet has {rest} of {PACKET} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(bytes: &[u8]) -> Container {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        look(file.path()).expect("readable")
    }

    fn part_of(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
    }

    fn edits(starts: &[i32]) -> Vec<u8> {
        let entries: Vec<u8> = starts
            .iter()
            .flat_map(|s| [&1000u32.to_be_bytes()[..], &s.to_be_bytes(), &[0, 1, 0, 0]].concat())
            .collect();
        let list = part_of(
            b"elst",
            &[
                &[0, 0, 0, 0],
                &(starts.len() as u32).to_be_bytes()[..],
                &entries,
            ]
            .concat(),
        );
        part_of(b"moov", &part_of(b"trak", &part_of(b"edts", &list)))
    }

    #[test]
    fn an_mp4_is_cut_where_a_box_reaches_beyond_its_end() {
        let whole = [
            part_of(b"ftyp", b"isom"),
            edits(&[1024]),
            part_of(b"mdat", &[7; 1000]),
        ]
        .concat();
        assert_eq!(
            look_at(&whole),
            Container {
                cut: None,
                stores_count: true
            }
        );
        let cut = look_at(&whole[..600]).cut.expect("cut");
        assert!(cut.starts_with("600 of "), "{cut}");
        assert_eq!(
            look_at(&[whole.clone(), vec![0; 5]].concat()).cut,
            None,
            "zeros behind the last box"
        );
    }

    #[test]
    fn the_frame_count_of_an_mp4_that_shows_only_a_part_or_has_fragments_is_not_used() {
        let stores = |index: Vec<u8>| {
            look_at(&[part_of(b"ftyp", b"isom"), index, part_of(b"mdat", &[7; 9])].concat())
                .stores_count
        };
        assert!(stores(edits(&[])) && stores(edits(&[0])) && stores(edits(&[-1, 1024])));
        assert!(!stores(edits(&[90_000])) && !stores(edits(&[0, 5000])));
        assert!(!stores(part_of(b"moov", &part_of(b"mvex", b""))));
        assert!(!stores(
            [part_of(b"moov", b""), part_of(b"moof", b"")].concat()
        ));
    }

    #[test]
    fn a_matroska_segment_of_known_size_shows_a_missing_end() {
        let file = |size: &[u8]| {
            [
                &[0x1a, 0x45, 0xdf, 0xa3, 0x82, 1, 2, 0x18, 0x53, 0x80, 0x67][..],
                size,
                &[0; 100],
            ]
            .concat()
        };
        assert_eq!(look_at(&file(&[0xe4])).cut, None, "100 bytes");
        assert_eq!(
            look_at(&file(&[0x40, 0x65])).cut.as_deref(),
            Some("113 of 114 bytes are present")
        );
        assert_eq!(
            look_at(&file(&[0x01, 255, 255, 255, 255, 255, 255, 255])).cut,
            None,
            "a stream"
        );
    }

    #[test]
    fn avi_and_transport_streams_show_a_missing_end() {
        let avi = |size: u32| [&b"RIFF"[..], &size.to_le_bytes(), b"AVI ", &[0; 96]].concat();
        assert_eq!(look_at(&avi(100)).cut, None);
        assert_eq!(look_at(&avi(0)).cut, None, "an interrupted recorder");
        assert!(look_at(&avi(5000)).cut.is_some());
        let packets: Vec<u8> = (0..5)
            .flat_map(|_| [&[0x47][..], &[0; 187]].concat())
            .collect();
        assert_eq!(look_at(&packets).cut, None);
        assert!(
            look_at(&packets[..470])
                .cut
                .expect("cut")
                .contains("94 of 188")
        );
    }

    #[test]
    fn nothing_is_known_about_other_files() {
        for bytes in [
            &b""[..],
            b"RIFF",
            b"\x1aE",
            b"hello, this is a text of some length",
        ] {
            assert_eq!(look_at(bytes), Container::default());
        }
    }
}
