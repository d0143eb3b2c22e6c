mod cost;
mod harness;
mod matrix;
mod pki;
