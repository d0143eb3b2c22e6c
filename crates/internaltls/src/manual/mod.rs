//! What an operator and an auditor want to know, and no single item can tell.
#[doc = include_str!("threat_model.md")]
pub mod threat_model {}

#[doc = include_str!("rotation.md")]
pub mod rotation {}

#[doc = include_str!("failures.md")]
pub mod failures {}

#[doc = include_str!("alarm.md")]
pub mod alarm {}

#[doc = include_str!("files.md")]
pub mod files {}
