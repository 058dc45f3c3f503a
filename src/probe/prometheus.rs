//! Endpoints that tell Prometheus metrics: named series are kept, counters as rates, histograms as means.

mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::ACCEPT;

use super::health::cause;
use super::{Moment, ProbeError, Rates};
use crate::net::read_bounded;
use crate::record::{Gauge, Watched};
use crate::scenario::PrometheusProbe;
use crate::scenario::file::Preset;
use crate::secret::{Secret, escaped};
use text::{Kind, Metrics, Selector};

/// How long a scrape may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The bytes of an answer that are read.
const ANSWER: usize = 8 << 20;
/// The deployment's own word on how long operations wait for a connection: the reference tells it.
const CHECKOUT: &str = "mongo_pool_checkout_wait_seconds";

/// The series of a preset.
fn known(preset: Preset) -> &'static [&'static str] {
    match preset {
        Preset::Librechat => &[
            "sse_streams_in_flight",
            "generation_jobs_in_flight",
            "nodejs_eventloop_lag_p99_seconds",
            "nodejs_eventloop_lag_p50_seconds",
            "mongoose_query_duration_seconds",
            "http_requests_total",
            CHECKOUT,
            "mongo_pool_connections_busy",
            "mongo_pool_connections_open",
            "mongo_pool_max_size",
        ],
        Preset::Node => &[
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "nodejs_eventloop_lag_seconds",
            "nodejs_eventloop_lag_p99_seconds",
            "nodejs_heap_size_used_bytes",
            "nodejs_heap_size_total_bytes",
            "nodejs_external_memory_bytes",
            "nodejs_active_handles_total",
            "nodejs_active_requests_total",
            "nodejs_gc_duration_seconds",
            "node_load1",
            "node_cpu_seconds_total{mode=\"idle\"}",
            "node_memory_MemAvailable_bytes",
            "node_memory_MemTotal_bytes",
            "node_filefd_allocated",
            "node_netstat_Tcp_CurrEstab",
            "node_netstat_TcpExt_ListenOverflows",
            "node_network_receive_bytes_total",
            "node_network_transmit_bytes_total",
        ],
        Preset::Mongodb => &[
            "mongodb_up",
            "mongodb_ss_connections{conn_type=\"current\"}",
            "mongodb_ss_connections{conn_type=\"active\"}",
            "mongodb_ss_opcounters",
            "mongodb_ss_opLatencies_latency",
            "mongodb_ss_wt_concurrentTransactions_out",
            "mongodb_ss_globalLock_currentQueue",
            "mongodb_ss_wt_cache_bytes_currently_in_the_cache",
            "mongodb_connections",
            "mongodb_op_counters_total",
        ],
        Preset::Redis => &[
            "redis_up",
            "redis_connected_clients",
            "redis_blocked_clients",
            "redis_memory_used_bytes",
            "redis_memory_max_bytes",
            "redis_commands_processed_total",
            "redis_evicted_keys_total",
            "redis_rejected_connections_total",
        ],
        Preset::Nginx => &[
            "nginx_up",
            "nginx_connections_active",
            "nginx_connections_accepted",
            "nginx_connections_handled",
            "nginx_connections_waiting",
            "nginx_connections_writing",
            "nginx_http_requests_total",
        ],
    }
}

/// Every preset.
const PRESETS: [Preset; 5] = [Preset::Librechat, Preset::Node, Preset::Mongodb, Preset::Redis, Preset::Nginx];

/// The watcher of an endpoint.
pub(super) struct Scraper {
    client: Client,
    settings: PrometheusProbe,
    bearer: Option<Secret>,
    wanted: Vec<Selector>,
    rates: Rates,
}

impl Scraper {
    pub(super) fn new(client: Client, settings: PrometheusProbe, bearer: Option<Secret>) -> Self {
        let presets = match settings.preset {
            Some(preset) => vec![preset],
            // What is named is meant alone.
            None if !settings.series.is_empty() => Vec::new(),
            None => PRESETS.to_vec(),
        };
        let named = settings.series.iter().map(|name| Selector::parse(name));
        let mut wanted: Vec<Selector> = Vec::new();
        for selector in named.chain(presets.into_iter().flat_map(known).map(|name| Selector::parse(name))) {
            if !wanted.contains(&selector) {
                wanted.push(selector);
            }
        }
        Self { client, settings, bearer, wanted, rates: Rates::default() }
    }

    pub(super) async fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        let text = self.scrape().await?;
        let metrics = Metrics::parse(&text);
        if metrics.is_empty() {
            return Err(ProbeError::Other {
                wanted: "Prometheus endpoint",
                said: "no metric in its answer".to_owned(),
            });
        }
        let mut found: BTreeMap<&str, f64> = BTreeMap::new();
        for selector in &self.wanted {
            let name = selector.written.as_str();
            match metrics.kind(selector) {
                Some(Kind::Level) => {
                    // Delays of several workers do not sum up: the longest is felt.
                    let value =
                        if name.ends_with("_seconds") { metrics.most(selector) } else { metrics.sum(selector, "") };
                    found.extend(value.map(|value| (name, value)));
                }
                Some(Kind::Counter) => {
                    let rate =
                        metrics.sum(selector, "").and_then(|value| self.rates.per_second(name, value, moment.at));
                    found.extend(rate.map(|rate| (name, rate)));
                }
                Some(Kind::Distribution) => {
                    let both = metrics.sum(selector, "_sum").zip(metrics.sum(selector, "_count"));
                    let mean = both.and_then(|(sum, count)| self.rates.mean(name, sum, count, moment.at));
                    found.extend(mean.map(|mean| (name, mean)));
                    let count = both.filter(|_| name == CHECKOUT).map(|(_, count)| count);
                    let rate = count.and_then(|count| self.rates.per_second("checkouts", count, moment.at));
                    if let Some(rate) = rate {
                        out.put(moment.second, Gauge::Checkouts, None, rate);
                    }
                }
                None => {}
            }
        }
        for (name, value) in found {
            if name == CHECKOUT {
                out.put(moment.second, Gauge::CheckoutWait, None, value * 1e6);
            } else {
                out.put(moment.second, Gauge::Named(escaped(name, 120)), None, value);
            }
        }
        for name in &self.settings.series {
            if metrics.kind(&Selector::parse(name)).is_none() {
                out.miss(&escaped(name, 120), "the endpoint tells no such series");
            }
        }
        Ok(())
    }

    async fn scrape(&self) -> Result<String, ProbeError> {
        let mut request = self.client.get(self.settings.url.clone()).timeout(PATIENCE).header(ACCEPT, "text/plain");
        if let Some(bearer) = &self.bearer {
            request = request.bearer_auth(bearer.expose());
        }
        let broken = |error: reqwest::Error| ProbeError::failed(cause(&error.without_url()));
        let response = request.send().await.map_err(broken)?;
        let status = response.status();
        if status == http::StatusCode::UNAUTHORIZED || status == http::StatusCode::FORBIDDEN {
            let grant = "name the variable of its bearer token: bearer_env, or METRICS_SECRET for the target's own";
            return Err(ProbeError::Denied { said: format!("answered {status}"), grant });
        }
        if !status.is_success() {
            return Err(ProbeError::failed(format!("answered {status}")));
        }
        let body = read_bounded(response, ANSWER).await.map_err(broken)?;
        if body.len() >= ANSWER {
            return Err(ProbeError::failed(format!("its answer is longer than {} MiB", ANSWER >> 20)));
        }
        String::from_utf8(body).map_err(|_| ProbeError::failed("its answer is no text"))
    }
}
