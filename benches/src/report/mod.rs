//! How results are shown: a table in the terminal, JSON, and one HTML file with plots.
mod html;
mod plot;
mod table;

pub use self::html::page;
pub use self::table::{pieces, table};
