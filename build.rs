//! Link options of the programs, tests and examples of this package.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux && std::env::var_os("CARGO_FEATURE_VIDEO").is_some() {
        // Makes OpenCV call the function in src/source/video/decoded.rs.
        println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=avcodec_receive_frame");
    }
}
