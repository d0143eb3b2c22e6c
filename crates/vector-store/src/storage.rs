//! Where everything durable is kept: a local folder, or with the feature `s3` a bucket.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use settings::Storage;

use crate::error::Error;

/// The storage that the configuration names.
///
/// # Errors
/// [`Error::Invalid`] if the folder cannot be made, a file it names cannot be read, or this build has no S3;
/// [`Error::Objects`] if it cannot be used.
pub fn open(storage: &Storage) -> Result<Arc<dyn ObjectStore>, Error> {
    match storage {
        Storage::Local { path } => folder(path),
        Storage::S3(bucket) => s3(bucket),
    }
}

/// A folder on the local disk; made if it is not there. Every object is synced before it counts as written, and
/// folders that become empty go away.
///
/// # Errors
/// As [`open`].
pub fn folder(path: &Path) -> Result<Arc<dyn ObjectStore>, Error> {
    std::fs::create_dir_all(path)
        .map_err(|error| Error::Invalid(format!("cannot make the data folder {}: {error}", path.display())))?;
    let store = LocalFileSystem::new_with_prefix(path)?.with_fsync(true).with_automatic_cleanup(true);
    Ok(Arc::new(store))
}

#[cfg(not(feature = "s3"))]
fn s3(bucket: &settings::S3) -> Result<Arc<dyn ObjectStore>, Error> {
    Err(Error::Invalid(format!(
        "minio.bucketName: bucket {} cannot be used, this build has no S3: build with --features vector-store/s3",
        bucket.bucket
    )))
}

/// A bucket. Plain HTTP is spoken only if the configuration says so.
#[cfg(feature = "s3")]
fn s3(bucket: &settings::S3) -> Result<Arc<dyn ObjectStore>, Error> {
    use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

    let mut builder = AmazonS3Builder::new()
        .with_endpoint(&bucket.endpoint)
        .with_bucket_name(&bucket.bucket)
        .with_region(&bucket.region)
        // What fences a former writer: an object is put only if it is not there.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client_options(bucket)?);
    if let (Some(id), Some(key)) = (&bucket.access_key_id, &bucket.secret_access_key) {
        builder = builder.with_access_key_id(id.reveal()).with_secret_access_key(key.reveal());
    }
    Ok(Arc::new(object_store::prefix::PrefixStore::new(builder.build()?, bucket.root.as_str())))
}

#[cfg(feature = "s3")]
fn client_options(bucket: &settings::S3) -> Result<object_store::ClientOptions, Error> {
    let mut options = object_store::ClientOptions::new().with_allow_http(!bucket.tls);
    for certificate in anchors(bucket)? {
        options = options.with_root_certificate(certificate);
    }
    Ok(options)
}

#[cfg(feature = "s3")]
fn anchors(bucket: &settings::S3) -> Result<Vec<object_store::Certificate>, Error> {
    let Some(path) = &bucket.ca else { return Ok(vec![]) };
    let unread = |error| Error::Invalid(format!("minio.ssl.tlsCACert: cannot read {}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(unread)?;
    Ok(object_store::Certificate::from_pem_bundle(&pem)?)
}
