//! Both edges against a cluster in memory, through real codecs.
mod fake;
mod grpc;
mod rest;
