//! librdkafka's batch interface, topic ids and tokens of unpolled clients, which the rdkafka crate does not wrap: the only
//! unsafe code of Larum.
//!
//! Safety rests on three rules. Every pointer comes from librdkafka and is freed once, by the type that owns it. A
//! message's bytes are lent only until the next message is taken (`&mut self`). The client outlives the queue: both live
//! in one struct whose queue field is declared, and so dropped, first.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};

/// A message as librdkafka holds it, lent until the next one is taken.
#[derive(Clone, Copy)]
pub struct Message<'q> {
    raw: &'q sys::rd_kafka_message_t,
}

impl<'q> Message<'q> {
    /// 0 for a record, else librdkafka's error code.
    pub fn error(&self) -> i32 {
        self.raw.err as i32
    }

    /// Identifies the topic among those of its client.
    pub fn topic_key(&self) -> usize {
        self.raw.rkt as usize
    }

    /// The topic's name.
    pub fn topic(&self) -> String {
        if self.raw.rkt.is_null() {
            return String::new();
        }
        // SAFETY: `rkt` of a message is valid while the message is; its name is a NUL-terminated string it owns.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.raw.rkt)) };
        name.to_string_lossy().into_owned()
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.raw.partition
    }

    /// The offset.
    pub fn offset(&self) -> i64 {
        self.raw.offset
    }

    /// Timestamp in ms, negative when there is none, and whether the broker set it.
    pub fn timestamp(&self) -> (i64, bool) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` outlives the call.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.raw, &mut kind) };
        (ms, kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME)
    }

    /// The value; `None` is a tombstone.
    pub fn value(self) -> Option<&'q [u8]> {
        if self.raw.payload.is_null() {
            return None;
        }
        // SAFETY: payload and length describe memory that the message owns; the borrow ends with the message's.
        Some(unsafe { std::slice::from_raw_parts(self.raw.payload.cast::<u8>(), self.raw.len) })
    }

    /// The last header of this name. Headers are read only when they are asked for.
    pub fn header(self, name: &CStr) -> Option<&'q [u8]> {
        let mut headers = ptr::null_mut();
        let (mut value, mut size) = (ptr::null(), 0);
        // SAFETY: the message is valid, the name ends with a zero, and what is written to outlives the calls. Headers and
        // their values belong to the message and live as long as it does; the borrow ends with the message's.
        unsafe {
            if sys::rd_kafka_message_headers(self.raw, &mut headers) as i32 != 0
                || sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size) as i32 != 0
                || value.is_null()
            {
                return None;
            }
            Some(std::slice::from_raw_parts(value.cast::<u8>(), size))
        }
    }
}

/// What a processor fetches at once.
const LINE_BYTES: usize = 64;
/// Of longer payloads the rest comes by itself.
const PREFETCH_BYTES_MAX: usize = 512;

/// A queue of our own that partitions' queues are forwarded to, and the batch last taken from it.
pub struct BatchQueue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    /// Messages of the batch that were taken; these but the last are freed.
    taken: usize,
}

// SAFETY: librdkafka's queues and messages may be used from any one thread at a time; `&mut self` makes it one.
unsafe impl Send for BatchQueue {}

impl BatchQueue {
    /// A queue of `consumer`; batches hold up to `batch_max` messages.
    pub fn new<C: ConsumerContext>(consumer: &BaseConsumer<C>, batch_max: usize) -> Option<BatchQueue> {
        // SAFETY: the client's pointer is valid while the client lives; the new queue is ours to destroy.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) })?;
        Some(BatchQueue { queue, batch: Vec::with_capacity(batch_max), taken: 0 })
    }

    /// Forwards a partition's queue here. Call before the partition is assigned.
    pub fn forward<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>, topic: &str, partition: i32) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: all three pointers are valid; the partition's queue is ours to release after forwarding.
        unsafe {
            let from = sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition);
            if from.is_null() {
                return false;
            }
            sys::rd_kafka_queue_forward(from, self.queue.as_ptr());
            sys::rd_kafka_queue_destroy(from);
        }
        true
    }

    /// Messages of the batch that were not taken yet.
    pub fn left(&self) -> usize {
        self.batch.len() - self.taken
    }

    /// Fills the batch anew if all of it was taken, waiting up to `timeout_ms` for it to be full.
    pub fn refill(&mut self, timeout_ms: i32) {
        if self.left() > 0 {
            return;
        }
        self.free_taken();
        // SAFETY: the spare capacity is as large as said, and librdkafka writes that many valid pointers at most.
        unsafe {
            let got = sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                timeout_ms,
                self.batch.as_mut_ptr(),
                self.batch.capacity(),
            );
            self.batch.set_len(usize::try_from(got).unwrap_or(0));
        }
    }

    /// Takes the next message of the batch; frees the one before.
    pub fn take(&mut self) -> Option<Message<'_>> {
        if self.taken > 0 {
            self.free(self.taken - 1);
        }
        let raw = *self.batch.get(self.taken)?;
        self.taken += 1;
        self.prefetch();
        // SAFETY: librdkafka gave a valid message that is freed only when the next is taken, after this borrow.
        unsafe { raw.as_ref() }.map(|raw| Message { raw })
    }

    /// Asks for the memory of the messages after the next: the client's thread wrote it from another core.
    #[inline]
    fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching reads nothing; the messages looked into were not taken yet, so they are valid.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            if let Some(raw) = self.batch.get(self.taken + 3) {
                _mm_prefetch::<_MM_HINT_T0>(raw.cast());
                _mm_prefetch::<_MM_HINT_T0>(raw.cast::<i8>().wrapping_add(LINE_BYTES));
            }
            if let Some(raw) = self.batch.get(self.taken + 1).and_then(|raw| raw.as_ref()) {
                for at in (0..raw.len.min(PREFETCH_BYTES_MAX)).step_by(LINE_BYTES) {
                    _mm_prefetch::<_MM_HINT_T0>(raw.payload.cast::<i8>().wrapping_add(at));
                }
            }
        }
    }

    fn free(&mut self, at: usize) {
        let raw = std::mem::replace(&mut self.batch[at], ptr::null_mut());
        if !raw.is_null() {
            // SAFETY: the pointer came from librdkafka and is replaced by null, so it is freed once.
            unsafe { sys::rd_kafka_message_destroy(raw) };
        }
    }

    fn free_taken(&mut self) {
        for at in 0..self.batch.len() {
            self.free(at);
        }
        self.batch.clear();
        self.taken = 0;
    }
}

impl Drop for BatchQueue {
    fn drop(&mut self) {
        self.free_taken();
        // SAFETY: created by us, destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Gives a client the token by which it says who it is. Only for clients that nobody polls: others ask for it.
pub fn give_token<C: ClientContext>(client: &Client<C>, token: &OAuthToken) -> Result<(), String> {
    let text = |text: &str| CString::new(text).map_err(|_| "the token holds a zero byte".to_string());
    let (value, principal) = (text(&token.token)?, text(&token.principal_name)?);
    let mut error = [0; 256];
    // SAFETY: the client and all texts outlive the call; the message is written within the length given, with a zero.
    let code = unsafe {
        sys::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    // SAFETY: as above.
    let why = || unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned();
    if code as i32 == 0 { Ok(()) } else { Err(why()) }
}

/// Ids of topics by name, as the broker gives them; topics that it does not describe are left out.
pub fn topic_ids<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[String],
    timeout_ms: i32,
) -> HashMap<String, String> {
    let names: Vec<CString> = topics.iter().filter_map(|t| CString::new(t.as_str()).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|n| n.as_ptr()).collect();
    let rk = consumer.client().native_ptr();
    let mut ids = HashMap::new();
    // SAFETY: names outlive the collection; collection, queue and event are each destroyed once, after their last use;
    // the event's type is checked before its result is read, and the result is copied out before it goes.
    unsafe {
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let queue = sys::rd_kafka_queue_new(rk);
        sys::rd_kafka_DescribeTopics(rk, collection, ptr::null(), queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        if !event.is_null() {
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            if !result.is_null() && sys::rd_kafka_event_error(event) as i32 == 0 {
                copy_ids(result, &mut ids);
            }
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_TopicCollection_destroy(collection);
    }
    ids
}

/// # Safety
/// `result` must be the valid result of a DescribeTopics event.
unsafe fn copy_ids(result: *const sys::rd_kafka_DescribeTopics_result_t, ids: &mut HashMap<String, String>) {
    // SAFETY: the result's arrays and strings are valid while its event is, which the caller keeps.
    unsafe {
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for at in 0..count {
            let topic = *topics.add(at);
            let id = sys::rd_kafka_TopicDescription_topic_id(topic);
            let text = if id.is_null() { ptr::null() } else { sys::rd_kafka_Uuid_base64str(id) };
            if !text.is_null() {
                let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic));
                let text = CStr::from_ptr(text);
                ids.insert(name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned());
            }
        }
    }
}
