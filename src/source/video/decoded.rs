//! Functions of FFmpeg that OpenCV does not offer: the number of a decoder's threads, size and
//! pixels of the frame that was decoded last, and which decoders in hardware there are.
//!
//! OpenCV 4.6 with FFmpeg 5 opens every decoder with one thread per core. OpenCV reads every frame
//! with the size in the stream's header, and has no property for the size of the decoded frame:
//! where the size changes within a stream, OpenCV returns parts of pictures and reads outside their
//! memory. OpenCV also converts each frame in a buffer of its own, of which the caller gets a copy.
//! Therefore this module defines FFmpeg's functions `avcodec_open2` and `avcodec_receive_frame`,
//! which the dynamic linker then calls in place of FFmpeg's. `avcodec_open2` sets the threads and
//! calls FFmpeg's function. `avcodec_receive_frame` calls FFmpeg's function and stores a reference
//! to the frame, which this module then converts.
//!
//! The dynamic linker calls this module's functions only if the program exports them, by the link
//! options in `build.rs`. In a program of other authors that does not export the functions, frames
//! are not available, OpenCV's picture is used, and a warning is logged.
#![expect(
    unsafe_code,
    reason = "calls FFmpeg's C functions, which OpenCV does not offer"
)]

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Arc, OnceLock};

use crate::frame::Image;
use crate::source::source_config::Hardware;

/// The first fields of FFmpeg's `AVFrame`, the same since FFmpeg 2 (2013).
#[repr(C)]
struct AvFrame {
    data: [*const u8; 8],
    /// Bytes from one row to the next.
    linesize: [c_int; 8],
    extended_data: *const c_void,
    /// Pixels.
    width: c_int,
    /// Pixels.
    height: c_int,
    /// Of audio.
    samples: c_int,
    /// `AVPixelFormat`.
    format: c_int,
}

/// Size and pixel format of a decoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Pixels, before the rotation that the stream asks for.
    pub width: i32,
    /// Pixels, before the rotation that the stream asks for.
    pub height: i32,
    /// `AVPixelFormat`.
    pixels: i32,
}

type ReceiveFrame = unsafe extern "C" fn(*mut c_void, *mut AvFrame) -> c_int;
type GetContext = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *mut c_void,
    *mut c_void,
    *const f64,
) -> *mut c_void;
type Scale = unsafe extern "C" fn(
    *mut c_void,
    *const *const u8,
    *const c_int,
    c_int,
    c_int,
    *const *mut u8,
    *const c_int,
) -> c_int;
type FreeContext = unsafe extern "C" fn(*mut c_void);
type OpenDecoder = unsafe extern "C" fn(*mut c_void, *const c_void, *mut *mut c_void) -> c_int;
type SetOption = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, c_int) -> c_int;

thread_local! {
    /// The frame that this thread decoded last.
    static LAST: Cell<*const AvFrame> = const { Cell::new(null()) };
    /// Threads of the decoders that this thread opens; 0: as OpenCV, one per core.
    static THREADS: Cell<usize> = const { Cell::new(0) };
}

/// Is called in place of FFmpeg's function of this name: calls that function, and stores a
/// reference to the frame.
#[unsafe(no_mangle)]
unsafe extern "C" fn avcodec_receive_frame(context: *mut c_void, frame: *mut AvFrame) -> c_int {
    static NEXT: OnceLock<Option<ReceiveFrame>> = OnceLock::new();
    // SAFETY: FFmpeg's function has this type.
    let next = NEXT.get_or_init(|| unsafe {
        symbol(libc::RTLD_NEXT, c"avcodec_receive_frame", "libavcodec")
            .map(|f| std::mem::transmute::<*mut c_void, ReceiveFrame>(f))
    });
    let Some(next) = next else {
        return -libc::ENOSYS;
    };
    // SAFETY: the caller's arguments are passed on.
    let result = unsafe { next(context, frame) };
    if result == 0 {
        LAST.set(frame);
    }
    result
}

/// Is called in place of FFmpeg's function of this name: sets the number of threads, and calls that
/// function.
#[unsafe(no_mangle)]
unsafe extern "C" fn avcodec_open2(
    context: *mut c_void,
    codec: *const c_void,
    options: *mut *mut c_void,
) -> c_int {
    static NEXT: OnceLock<Option<(OpenDecoder, Option<SetOption>)>> = OnceLock::new();
    // SAFETY: FFmpeg's functions have these types.
    let next = NEXT.get_or_init(|| unsafe {
        let open = symbol(libc::RTLD_NEXT, c"avcodec_open2", "libavcodec")?;
        let set = symbol(libc::RTLD_DEFAULT, c"av_opt_set", "libavutil");
        Some((
            std::mem::transmute::<*mut c_void, OpenDecoder>(open),
            set.map(|f| std::mem::transmute::<*mut c_void, SetOption>(f)),
        ))
    });
    let Some((next, set)) = next else {
        return -libc::ENOSYS;
    };
    let threads = THREADS.get();
    if threads > 0
        && let (Some(set), Ok(value)) = (set, CString::new(threads.to_string()))
    {
        // SAFETY: the context is an object with options, and both texts end with a zero byte. A
        // decoder without this option rejects it, and is opened as it is.
        unsafe { set(context, c"threads".as_ptr(), value.as_ptr(), 0) };
    }
    // SAFETY: the caller's arguments are passed on.
    unsafe { next(context, codec, options) }
}

/// Calls `open`; the decoders that it opens have this many threads.
pub(super) fn with_threads<T>(threads: usize, open: impl FnOnce() -> T) -> T {
    THREADS.set(threads);
    let opened = open();
    THREADS.set(0);
    opened
}

/// The decoders in hardware whose device FFmpeg can open. Which formats they decode is not known.
pub fn hardware() -> Vec<Hardware> {
    type Find = unsafe extern "C" fn(*const c_char) -> c_int;
    type Create =
        unsafe extern "C" fn(*mut *mut c_void, c_int, *const c_char, *mut c_void, c_int) -> c_int;
    type Release = unsafe extern "C" fn(*mut *mut c_void);
    type Level = unsafe extern "C" fn() -> c_int;
    type SetLevel = unsafe extern "C" fn(c_int);
    const QUIET: c_int = -8;
    let find = |name| symbol(libc::RTLD_DEFAULT, name, "libavutil");
    let functions = || {
        // SAFETY: FFmpeg's functions have these types.
        Some(unsafe {
            (
                std::mem::transmute::<*mut c_void, Find>(find(c"av_hwdevice_find_type_by_name")?),
                std::mem::transmute::<*mut c_void, Create>(find(c"av_hwdevice_ctx_create")?),
                std::mem::transmute::<*mut c_void, Release>(find(c"av_buffer_unref")?),
                std::mem::transmute::<*mut c_void, Level>(find(c"av_log_get_level")?),
                std::mem::transmute::<*mut c_void, SetLevel>(find(c"av_log_set_level")?),
            )
        })
    };
    let Some((kind_of, create, release, level, set_level)) = functions() else {
        return Vec::new();
    };
    let opens = |(_, name): &(Hardware, &CStr)| {
        let mut device = null_mut();
        // SAFETY: the name ends with a zero byte; null stands for the default device and no
        // options; the device is released once.
        unsafe {
            let before = level();
            set_level(QUIET);
            let created = create(&mut device, kind_of(name.as_ptr()), null(), null_mut(), 0);
            release(&mut device);
            set_level(before);
            created >= 0
        }
    };
    [(Hardware::Vaapi, c"vaapi"), (Hardware::Nvdec, c"cuda")]
        .into_iter()
        .filter(opens)
        .map(|(hardware, _)| hardware)
        .collect()
}

/// The function `name`, searched from `from`, then in the loaded `library`: where OpenCV loads
/// FFmpeg as a plug-in, its libraries are not searched otherwise.
fn symbol(from: *mut c_void, name: &CStr, library: &str) -> Option<*mut c_void> {
    let find = |place: *mut c_void| {
        // SAFETY: the name ends with a zero byte.
        let found = unsafe { libc::dlsym(place, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    };
    let in_version = |version: u32| {
        let file = CString::new(format!("{library}.so.{version}")).ok()?;
        // SAFETY: the name ends with a zero byte; a library that is loaded already runs no code.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        (!handle.is_null()).then(|| find(handle)).flatten()
    };
    find(from).or_else(|| (1..100).find_map(in_version))
}

/// Whether OpenCV calls this module's function, so that [`format`] knows the frames it decodes.
pub(super) fn is_called() -> bool {
    let own: ReceiveFrame = avcodec_receive_frame;
    let found = symbol(libc::RTLD_DEFAULT, c"avcodec_receive_frame", "libavcodec");
    found == Some(own as *mut c_void)
}

/// Forgets the last frame; to be called before the next one is decoded.
pub(super) fn forget() {
    LAST.set(null());
}

/// Size and format of the frame that this thread decoded since [`forget`]; `None` if unknown. The
/// capture that decoded it must not have been released or advanced since.
pub(super) fn format() -> Option<Format> {
    // SAFETY: the frame belongs to the capture, by the condition above.
    let frame = unsafe { LAST.get().as_ref() }?;
    Some(Format {
        width: frame.width,
        height: frame.height,
        pixels: frame.format,
    })
}

/// Buffers of pixels that frames hold; a buffer is used again when no frame holds it. A new buffer
/// costs more time than the conversion of a small frame: the system maps its memory page by page,
/// and the buffer is filled with zeros.
#[derive(Default)]
pub(super) struct Buffers(Vec<Arc<[u8]>>);

impl Buffers {
    /// A buffer of `length` bytes that nobody holds, with any content. Others that nobody holds are
    /// freed.
    fn take(&mut self, length: usize) -> Arc<[u8]> {
        let unused = |b: &mut Arc<[u8]>| Arc::get_mut(b).is_some_and(|b| b.len() == length);
        let buffer = self.0.iter_mut().position(unused);
        let buffer = buffer.map(|i| self.0.swap_remove(i));
        self.0.retain_mut(|b| Arc::get_mut(b).is_none());
        buffer.unwrap_or_else(|| std::iter::repeat_n(0, length).collect())
    }

    /// Remembers a buffer that a frame holds.
    fn lend(&mut self, buffer: &Arc<[u8]>) {
        self.0.push(buffer.clone());
    }
}

/// Converts decoded frames of one format to BGR.
pub(super) struct Converter {
    format: Format,
    /// `SwsContext`, owned.
    context: *mut c_void,
    scale: Scale,
    free: FreeContext,
}

// SAFETY: the context belongs to the converter alone, and has no tie to a thread.
unsafe impl Send for Converter {}

/// FFmpeg's `AV_PIX_FMT_BGR24`.
const BGR24: c_int = 3;
/// FFmpeg's `SWS_BICUBIC`, as OpenCV.
const BICUBIC: c_int = 4;
/// FFmpeg writes whole vectors, beyond the end of a row too: rows whose width is not a multiple of
/// [`VECTOR`] are padded to a multiple of this many pixels.
const ROW: i32 = 64;
/// Pixels of a vector.
const VECTOR: i32 = 16;

impl Converter {
    /// For frames of `format`; `None` if FFmpeg cannot convert them.
    pub(super) fn new(format: Format) -> Option<Self> {
        let all = libc::RTLD_DEFAULT;
        let (make, scale, free) = (
            symbol(all, c"sws_getContext", "libswscale")?,
            symbol(all, c"sws_scale", "libswscale")?,
            symbol(all, c"sws_freeContext", "libswscale")?,
        );
        // SAFETY: FFmpeg's functions have these types.
        let (make, scale, free) = unsafe {
            (
                std::mem::transmute::<*mut c_void, GetContext>(make),
                std::mem::transmute::<*mut c_void, Scale>(scale),
                std::mem::transmute::<*mut c_void, FreeContext>(free),
            )
        };
        let Format {
            width,
            height,
            pixels,
        } = format;
        // SAFETY: null stands for no filters and default parameters.
        let context = unsafe {
            make(
                width,
                height,
                pixels,
                width,
                height,
                BGR24,
                BICUBIC,
                null_mut(),
                null_mut(),
                null(),
            )
        };
        (!context.is_null()).then_some(Converter {
            format,
            context,
            scale,
            free,
        })
    }

    /// The format that it converts.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// The frame that this thread decoded last, as BGR of its own size. The condition of [`format`]
    /// applies to this function too.
    ///
    /// # Errors
    /// If it has another format, or FFmpeg cannot convert it.
    pub(super) fn convert(&self, buffers: &mut Buffers) -> Result<Image, String> {
        if format() != Some(self.format) {
            return Err("the decoded frame has another format".into());
        }
        let Format { width, height, .. } = self.format;
        let padded = if width % VECTOR == 0 {
            width
        } else {
            (width + ROW) / ROW * ROW
        };
        // One row more, for the last row's vectors.
        let mut data = buffers.take(3 * padded as usize * (height as usize + 1));
        let pixels = Arc::get_mut(&mut data).ok_or("the buffer of its pixels is in use")?;
        let rows = [pixels.as_mut_ptr(), null_mut(), null_mut(), null_mut()];
        let strides = [3 * padded, 0, 0, 0];
        // SAFETY: the frame is alive and has this format; the buffer has `height` rows of at least
        // `width` pixels.
        let written = unsafe {
            let frame = &*LAST.get();
            (self.scale)(
                self.context,
                frame.data.as_ptr(),
                frame.linesize.as_ptr(),
                0,
                height,
                rows.as_ptr(),
                strides.as_ptr(),
            )
        };
        buffers.lend(&data);
        if written != height {
            return Err(format!("FFmpeg converted {written} of {height} rows"));
        }
        Ok(Image {
            width: width as u32,
            height: height as u32,
            stride: 3 * padded as usize,
            data,
            pixel_aspect: 1.0,
        })
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // SAFETY: the context is freed once.
        unsafe { (self.free)(self.context) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames in the memory of a decoder in hardware are left to OpenCV, which copies them.
    #[test]
    fn formats_of_decoders_in_hardware_are_not_converted_here() {
        type ByName = unsafe extern "C" fn(*const c_char) -> c_int;
        let find = symbol(libc::RTLD_DEFAULT, c"av_get_pix_fmt", "libavutil").expect("FFmpeg");
        for (name, converts) in [(c"vaapi", false), (c"cuda", false), (c"yuv420p", true)] {
            // SAFETY: FFmpeg's function has this type, and the name ends with a zero byte.
            let pixels = unsafe {
                let find = std::mem::transmute::<*mut c_void, ByName>(find);
                find(name.as_ptr())
            };
            assert!(pixels >= 0, "{name:?}");
            let (width, height) = (64, 64);
            let converter = Converter::new(Format {
                width,
                height,
                pixels,
            });
            assert_eq!(converter.is_some(), converts, "{name:?}");
        }
    }

    #[test]
    fn buffers_are_used_again_when_no_frame_holds_them() {
        let mut buffers = Buffers::default();
        let held = buffers.take(8);
        let place = held.as_ptr();
        buffers.lend(&held);
        assert_ne!(buffers.take(8).as_ptr(), place, "it is held");
        drop(held);
        let again = buffers.take(8);
        assert_eq!(again.as_ptr(), place);
        buffers.lend(&again);
        drop(again);
        assert_eq!(buffers.take(4).len(), 4, "of another size");
        assert!(buffers.0.is_empty(), "a buffer that nobody holds is kept");
    }
}
