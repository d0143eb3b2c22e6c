//! How bytes reach a peer. TCP today; QUIC will stand beside it and yield the same connections.
//!
//! What lies between HTTP/2 and the kernel, from the top: `gathered` puts what is written in one turn into one record and
//! one system call; then TLS; `read_ahead` lets TLS read more than a quarter of a record at a time; `tcp` has the sockets,
//! and `descriptors` how many of them there may be.
pub(crate) mod descriptors;
pub(crate) mod gathered;
pub(crate) mod read_ahead;
pub(crate) mod tcp;
