//! Worker state: watermarks, key admission, event to Delta; the clock of a source.
