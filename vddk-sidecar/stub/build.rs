//! Gives the library the name under which nbdkit and VDDK's other users look for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvixDiskLib.so.8");
}
