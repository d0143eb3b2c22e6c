//! What tests need: certificates of any kind, processes, clusters, faults between them, stock clients.
//!
//! 1. It panics, with a sentence, where a test cannot go on: its callers are tests.
//! 2. Nothing sleeps to wait: [`wait::until`] asks for a condition under a deadline and tells the last state it saw.
//! 3. Nothing outlives the tests: every process has a watchdog that ends it when the test process is gone, however it went.
//!
//! Parts: [`authority`] signs; [`forge`] and [`rogue`] are an attacker's tools; [`disk`] puts files where processes look, in the ways people do; [`documented`] is the set that
//! the Milvus documentation makes; [`process`] and [`cluster`] run things; [`relay`] stands between them; [`http`], [`tls`], [`load`],
//! [`clients`], [`command`] and [`python`] ask them.
pub mod authority;
pub mod clients;
pub mod cluster;
pub mod command;
pub mod disk;
pub mod documented;
pub mod forge;
pub mod http;
pub mod load;
pub mod process;
pub mod python;
pub mod relay;
pub mod rogue;
pub mod tls;
pub mod wait;
