//! Object stores: a client for a bucket, with what the operator's variables say of it.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};

use crate::http::Http;
use crate::location::{Location, Scheme};
use crate::remote::causes;

/// Times that a request is tried again.
const RETRIES_MAX: usize = 3;

/// A bucket's client, and the directory in it.
pub(crate) fn open(
    location: &Location,
    options: &[(String, String)],
    http: &Http,
) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    // A builder takes the variables that it knows; what is another store's has no key in it.
    macro_rules! built {
        ($builder:ident, $key:ident) => {{
            let known = options.iter().filter_map(|(key, value)| {
                let key: $key = key.parse().ok()?;
                Some((key, value))
            });
            let retry = RetryConfig { max_retries: RETRIES_MAX, ..RetryConfig::default() };
            let builder = known.fold($builder::new(), |builder, (key, value)| {
                builder.with_config(key, value.as_str())
            });
            let bucket = format!("{}://{}", location.scheme().as_str(), location.authority());
            let builder = builder.with_url(bucket).with_retry(retry);
            let store = builder.with_http_connector(http.clone()).build();
            Arc::new(store.map_err(|error| causes(&error))?) as Arc<dyn ObjectStore>
        }};
    }
    let store = match location.scheme() {
        Scheme::S3 => built!(AmazonS3Builder, AmazonS3ConfigKey),
        Scheme::Gs => built!(GoogleCloudStorageBuilder, GoogleConfigKey),
        Scheme::Az => built!(MicrosoftAzureBuilder, AzureConfigKey),
        other => return Err(format!("{} is no object store", other.as_str())),
    };
    let dir = Path::parse(location.path()).map_err(|error| causes(&error))?;
    Ok((store, dir))
}
