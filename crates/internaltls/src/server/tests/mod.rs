//! A server, a plain HTTP/2 client, and nothing of the mesh's own client between them.
mod attacks;
mod bounds;
mod calls;
mod edge;
mod ending;
mod goaway;
mod lists;
mod pki;
mod policy;
mod rig;
mod rotation;
mod shared_keys;
mod trial;
