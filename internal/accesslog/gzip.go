package accesslog

import (
	"bytes"
	"compress/gzip"

	"smtplb/internal/sink"
)

// compressor is a device that writes what each Write gets as a gzip member.
type compressor struct {
	sink.Device
	zip    *gzip.Writer
	member bytes.Buffer // what of it is not written yet
	torn   bool         // the member's beginning is written
}

// compress takes ownership of the device. The level is one that gzip knows.
func compress(d sink.Device, level int) *compressor {
	zip, err := gzip.NewWriterLevel(nil, level)
	if err != nil {
		panic("accesslog: BUG: " + err.Error())
	}
	return &compressor{Device: d, zip: zip}
}

// Write writes all lines of p or loses them all. A member that broke off is
// completed before another one begins, or zcat would read nothing beyond it;
// its lines count as lost, since nobody knows if it ever will be.
func (c *compressor) Write(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	c.zip.Reset(&c.member)
	_, _ = c.zip.Write(p) // a bytes.Buffer takes everything
	_ = c.zip.Close()
	if err := c.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes the member. One of which nothing could be written is dropped.
func (c *compressor) flush() error {
	if c.member.Len() == 0 {
		return nil
	}
	n, err := c.Device.Write(c.member.Bytes())
	c.member.Next(n)
	c.torn = err != nil && (c.torn || n > 0)
	if !c.torn {
		c.member.Reset()
	}
	return err
}
