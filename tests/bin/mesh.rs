//! `meshctl`, as the tests run it.
fn main() -> std::process::ExitCode {
    meshctl::main()
}
