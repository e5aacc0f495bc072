//! The endpoint of the metrics listener.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::extract::Query;
use super::{ApiState, EndpointResult, reply};
use crate::error::{Error, Kind};
use crate::metrics::Format;
use crate::model::TenantName;
use crate::tenants::Tenant;

/// What Prometheus asks for, in the format that it prefers. With many models that is megabytes: they are written on a
/// thread that serves no requests, one scrape at a time.
pub(super) async fn scrape(
    api: ApiState,
    headers: HeaderMap,
    Query(query): Query,
) -> EndpointResult {
    let names = query.into_iter().filter(|(name, _)| name == "name[]");
    let names: Vec<String> = names.map(|(_, value)| value).collect();
    let format = preferred(&headers);
    let _turn = api.common.scraping.acquire().await;
    let (catalog, metrics) = (&api.services.catalog, &api.services.metrics);
    let (catalog, metrics) = (catalog.clone(), metrics.clone());
    let tenants = api.services.tenants.as_ref();
    let tenants = tenants.map(|tenants| tenants.all()).unwrap_or_default();
    let written = tokio::task::spawn_blocking(move || {
        catalog.measure();
        let of_tenant = |(name, tenant): &(TenantName, Arc<Tenant>)| {
            tenant.catalog().measure();
            (name.clone(), tenant.metrics().clone())
        };
        let tenants: Vec<_> = tenants.iter().map(of_tenant).collect();
        metrics.scrape_with(format, &names, &tenants)
    });
    let text = written.await.map_err(|error| {
        Error::new(Kind::Internal, "The metrics could not be written").with_detail(error)
    })?;
    let content_type = HeaderValue::from_static(format.content_type());
    Ok(reply::with_type(StatusCode::OK, content_type, text))
}

/// `OpenMetrics` if `Accept` names it, with a higher weight than plain text if it names both; TorchServe's text otherwise.
/// Wildcards mean TorchServe's text, which is what every client can read.
fn preferred(headers: &HeaderMap) -> Format {
    let openmetrics = weight(headers, "application/openmetrics-text", "1.0.0");
    if openmetrics > weight(headers, "text/plain", "0.0.4") {
        Format::OpenMetrics
    } else {
        Format::TorchServe
    }
}

/// The highest weight in `Accept` of `media_type` in `version` or without one; 0 if it is not there.
fn weight(headers: &HeaderMap, media_type: &str, version: &str) -> f32 {
    let values = headers.get_all(header::ACCEPT).iter();
    let ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let weights = ranges.filter_map(|range| weight_of(range, media_type, version));
    weights.fold(0.0, f32::max)
}

/// The weight of one media range, if it is of `media_type` in `version` or without one. A weight that is none is 0.
fn weight_of(range: &str, media_type: &str, version: &str) -> Option<f32> {
    let mut pieces = range.split(';').map(str::trim);
    let is_type = pieces.next()?.eq_ignore_ascii_case(media_type);
    let parameters: Vec<_> = pieces.filter_map(|piece| piece.split_once('=')).collect();
    let parameter = |name: &str| {
        let mut named = parameters
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim_matches('"'))
    };
    let is_version = parameter("version").is_none_or(|other| other == version);
    let weight = parameter("q").map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
    let weight = weight.filter(|weight| (0.0..=1.0).contains(weight));
    (is_type && is_version).then_some(weight.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred_by(accept: &str) -> Format {
        preferred_by_lines([accept])
    }

    fn preferred_by_lines<const N: usize>(lines: [&str; N]) -> Format {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT, line.parse().unwrap());
        }
        preferred(&headers)
    }

    #[test]
    fn clients_that_do_not_prefer_openmetrics_get_torchserves_text() {
        assert_eq!(preferred(&HeaderMap::new()), Format::TorchServe);
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=x",
            "application/openmetrics-text,text/plain",
            "application/openmetrics-text;q=0.4,text/plain;version=0.0.4;q=0.5",
            "application/vnd.google.protobuf;q=0.9, text/plain;q=0.1",
        ] {
            assert_eq!(preferred_by(accept), Format::TorchServe, "{accept}");
        }
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text, */*",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.1",
            "text/plain;q=0.5,application/openmetrics-text;version=1.0.0;q=0.8",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        ] {
            assert_eq!(preferred_by(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn every_line_of_the_header_counts() {
        for (lines, format) in [
            (
                ["text/plain;q=0.5", "application/openmetrics-text"],
                Format::OpenMetrics,
            ),
            (
                ["application/openmetrics-text", "text/plain;q=0.5"],
                Format::OpenMetrics,
            ),
            (
                ["application/openmetrics-text;q=0.5", "text/plain"],
                Format::TorchServe,
            ),
            (["", "application/openmetrics-text"], Format::OpenMetrics),
        ] {
            assert_eq!(preferred_by_lines(lines), format, "{lines:?}");
        }
    }
}
