//! The client's end of a request, as seen by who writes to it: it reads, it has left, or it has not read
//! for so long that it counts as having left. A client that stays and does not read would hold its
//! adapter for ever.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::answer::AnswerEvent;

/// Where events of one request go. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    sender: mpsc::Sender<AnswerEvent>,
    stall_max: Duration,
    given_up: CancellationToken,
}

impl Client {
    pub(crate) fn new(sender: mpsc::Sender<AnswerEvent>, stall_max: Duration) -> Self {
        Self { sender, stall_max, given_up: CancellationToken::new() }
    }

    /// Tells the client, if it is there; who does not read within the limit is given up.
    pub(crate) async fn tell(&self, event: AnswerEvent) {
        if self.given_up.is_cancelled() {
            return;
        }
        if timeout(self.stall_max, self.sender.send(event)).await.is_err() {
            tracing::debug!("a client did not read its answer and is given up");
            self.given_up.cancel();
        }
    }

    /// Returns when the client has left.
    pub(crate) async fn left(&self) {
        tokio::select! {
            () = self.sender.closed() => {}
            () = self.given_up.cancelled() => {}
        }
    }

    pub(crate) fn has_left(&self) -> bool {
        self.sender.is_closed() || self.given_up.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use ::request::FinishReason;

    use super::*;

    fn event(choice: u32) -> AnswerEvent {
        AnswerEvent::Finished { choice, reason: FinishReason::Stop }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up() {
        let (sender, mut receiver) = mpsc::channel(1);
        let client = Client::new(sender, Duration::from_millis(20));
        client.tell(event(0)).await;
        assert!(!client.has_left(), "there was room");
        client.tell(event(1)).await;
        assert!(client.has_left());
        client.clone().left().await;
        // What was told before stays readable; nothing is told any more.
        client.tell(event(2)).await;
        assert!(matches!(receiver.recv().await, Some(AnswerEvent::Finished { choice: 0, .. })));
        drop(client);
        assert!(receiver.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_reads_is_told_everything() {
        let (sender, mut receiver) = mpsc::channel(1);
        let client = Client::new(sender, Duration::from_secs(60));
        let reads = async {
            let mut read = 0;
            while read < 50 && receiver.recv().await.is_some() {
                read += 1;
            }
            drop(receiver);
            read
        };
        let tells = async {
            for choice in 0..50 {
                client.tell(event(choice)).await;
            }
            client.left().await;
        };
        assert_eq!(tokio::join!(reads, tells).0, 50);
        assert!(client.has_left());
        client.tell(event(0)).await;
    }
}
