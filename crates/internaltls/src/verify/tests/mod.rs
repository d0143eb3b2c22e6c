mod cost;
mod matrix;
mod pki;
