//! What encrypted internal RPC costs, measured side by side.
//!
//! 1. Client and server are processes of their own on the loopback address. Sidecars stand between them as they would on a
//!    host: the client's, and the server's.
//! 2. All variants of a scenario run in one run, in an order that is shuffled each round; what is told is the median. One
//!    variant is entered twice, and how far the two lie apart is the noise below which nothing means anything.
//! 3. The figure to trust is processor time per call, of all processes together: the kernel counts it, and another tenant
//!    of the machine does not change it as it changes a wall clock.
//! 4. Every call's answer is checked, and a failed call ends the run: what is fast because it does not work is no result.
//!
//! The parts: [`scenario`] is the work and [`variant`] what does it; [`rounds`] runs them by [`child`] processes, which serve
//! and [`call`] with what [`ends`] has for the variant and the service of [`echo`]; [`sample`] is what a client tells,
//! [`figures`] what becomes of it, and [`report`] how it is shown.
//! [`sidecar`] has the pairs of proxies, [`end_to_end`] the whole cluster with its stock client, and [`milvus`] the real
//! one;
//! [`pieces`] times parts of internaltls by themselves, and [`instructions`] counts what a call takes.
pub mod call;
pub mod child;
pub mod cli;
pub mod cpu;
pub mod echo;
pub mod end_to_end;
pub mod ends;
pub mod figures;
pub mod instructions;
pub mod material;
pub mod milvus;
pub mod pieces;
pub mod report;
pub mod rounds;
pub mod sample;
pub mod scenario;
pub mod sidecar;
pub mod variant;
