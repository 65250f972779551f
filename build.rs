//! Link options of the programs, tests and examples of this package.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux && std::env::var_os("CARGO_FEATURE_VIDEO").is_some() {
        // Makes OpenCV call the functions in src/source/video/decoded.rs.
        for name in ["avcodec_open2", "avcodec_receive_frame"] {
            println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol={name}");
        }
    }
}
