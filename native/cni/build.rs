//! Where it can be, the program is entered at `weft_entry` (src/entry.rs), before the C library is started.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let machine = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if machine == "x86_64" || machine == "aarch64" {
        println!("cargo:rustc-link-arg-bins=-Wl,--entry=weft_entry");
    }
}
