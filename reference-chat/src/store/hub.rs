//! The connection for what Redis publishes, shared by everybody in the process who listens.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::commands::CONNECT;

/// How long until a lost connection is tried again.
const PAUSE: Duration = Duration::from_millis(300);

type Senders = HashMap<String, Vec<mpsc::UnboundedSender<Bytes>>>;

enum Order {
    Listen {
        channel: String,
        sender: mpsc::UnboundedSender<Bytes>,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Somebody listens no more: the channel is left if nobody does.
    Left(String),
}

/// Where to ask for a channel.
pub(super) struct Hub {
    orders: mpsc::UnboundedSender<Order>,
}

/// One channel, as long as it lives.
pub(crate) struct Listening {
    channel: String,
    messages: mpsc::UnboundedReceiver<Bytes>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Listening {
    /// The next message; none when the deployment ends. What is published while the connection is
    /// lost is lost with it.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.messages.recv().await
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.messages.close();
        // The hub may have ended with the deployment.
        let _ = self.orders.send(Order::Left(std::mem::take(&mut self.channel)));
    }
}

impl Hub {
    /// Connects, and goes on doing so; ends when it is dropped and nobody listens any more.
    pub(super) fn start(client: redis::Client) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        tokio::spawn(serve(client, received));
        Self { orders }
    }

    /// Listens to a channel from now on.
    pub(super) async fn listen(&self, channel: String) -> Result<Listening, StoreError> {
        let refused = |what: String| StoreError::Refused { store: "Redis", what };
        let (sender, messages) = mpsc::unbounded_channel();
        let (done, listening) = oneshot::channel();
        let order = Order::Listen { channel: channel.clone(), sender, done };
        if self.orders.send(order).is_err() {
            return Err(refused("the connection has ended".to_owned()));
        }
        match tokio::time::timeout(CONNECT * 2, listening).await {
            Ok(Ok(Ok(()))) => Ok(Listening { channel, messages, orders: self.orders.clone() }),
            Ok(Ok(Err(what))) => Err(refused(what)),
            _ => Err(refused("no answer to a subscription".to_owned())),
        }
    }
}

/// Keeps one connection; after it was lost, a new one with the same channels.
async fn serve(client: redis::Client, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut senders = Senders::new();
    loop {
        let Some((mut sink, mut stream)) = connect(&client, &senders).await else {
            // Whoever asks in the meantime is refused rather than kept waiting.
            let pause = tokio::time::sleep(PAUSE);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    order = orders.recv() => match order {
                        Some(order) => refuse(order, &mut senders),
                        None => return,
                    },
                }
            }
            continue;
        };
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => deliver(&mut senders, &message),
                    None => break,
                },
                order = orders.recv() => match order {
                    Some(order) => obey(order, &mut sink, &mut senders).await,
                    None => return,
                },
            }
        }
    }
}

async fn connect(client: &redis::Client, senders: &Senders) -> Option<(PubSubSink, PubSubStream)> {
    let connected = tokio::time::timeout(CONNECT, Box::pin(client.get_async_pubsub())).await;
    let (mut sink, stream) = connected.ok()?.ok()?.split();
    for channel in senders.keys() {
        tokio::time::timeout(CONNECT, sink.subscribe(channel.as_str())).await.ok()?.ok()?;
    }
    Some((sink, stream))
}

fn deliver(senders: &mut Senders, message: &redis::Msg) {
    let payload = Bytes::copy_from_slice(message.get_payload_bytes());
    if let Some(listeners) = senders.get_mut(message.get_channel_name()) {
        listeners.retain(|listener| listener.send(payload.clone()).is_ok());
    }
}

async fn obey(order: Order, sink: &mut PubSubSink, senders: &mut Senders) {
    match order {
        Order::Listen { channel, sender, done } => {
            let known = senders.contains_key(&channel);
            // Heard of before the confirmation is back, lest the first message be lost.
            senders.entry(channel.clone()).or_default().push(sender);
            let result = if known { Ok(()) } else { subscribe(sink, &channel).await };
            if result.is_err() {
                senders.remove(&channel);
            }
            // Whoever asked may have gone.
            let _ = done.send(result);
        }
        Order::Left(channel) => {
            if leave(senders, &channel) {
                // The connection may be lost; then there is nothing to leave.
                let _ = tokio::time::timeout(CONNECT, sink.unsubscribe(channel.as_str())).await;
            }
        }
    }
}

async fn subscribe(sink: &mut PubSubSink, channel: &str) -> Result<(), String> {
    match tokio::time::timeout(CONNECT, sink.subscribe(channel)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("a subscription was refused or its connection lost".to_owned()),
        Err(_) => Err("no answer to a subscription".to_owned()),
    }
}

fn refuse(order: Order, senders: &mut Senders) {
    match order {
        Order::Listen { done, .. } => {
            // Whoever asked may have gone.
            let _ = done.send(Err("the connection for subscriptions is lost".to_owned()));
        }
        Order::Left(channel) => {
            leave(senders, &channel);
        }
    }
}

/// Forgets those who have gone; gives whether nobody is left.
fn leave(senders: &mut Senders, channel: &str) -> bool {
    let Some(listeners) = senders.get_mut(channel) else { return false };
    listeners.retain(|listener| !listener.is_closed());
    let empty = listeners.is_empty();
    if empty {
        senders.remove(channel);
    }
    empty
}
