package main

import (
	"log"
	"math/rand"
	"net"
	"net/http"
	"strconv"
)

// due draws whether a fault of this fraction happens now.
func (f *Faults) due(fraction float64, stats *stats) bool {
	return fraction > 0 && stats.DiskBytes.Load() >= f.AfterBytes && rand.Float64() < fraction
}

// refusingListener closes some of the new connections at once.
type refusingListener struct {
	net.Listener
	faults *Faults
	stats  *stats
}

func (l *refusingListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.faults.due(l.faults.Refuse, l.stats) {
			return conn, err
		}
		l.stats.Refused.Add(1)
		log.Printf("refused %s", conn.RemoteAddr())
		conn.Close()
	}
}

// diskWriter counts what is sent of a disk and, when it is to drop the connection, cuts it somewhere in the body.
type diskWriter struct {
	http.ResponseWriter
	stats *stats
	drop  bool
	disk  bool  // what is sent is of the disk, not an error's text
	cut   int64 // bytes left until then; negative: not drawn, or never
}

func (d *diskWriter) WriteHeader(status int) {
	d.disk = status < http.StatusMultipleChoices
	length, err := strconv.ParseInt(d.Header().Get("Content-Length"), 10, 64)
	if d.drop && d.disk && err == nil && length > 0 {
		d.cut = rand.Int63n(length)
	}
	d.ResponseWriter.WriteHeader(status)
}

func (d *diskWriter) Write(p []byte) (int, error) {
	if d.cut < 0 || int64(len(p)) <= d.cut {
		n, err := d.ResponseWriter.Write(p)
		if d.disk {
			d.stats.DiskBytes.Add(int64(n))
		}
		if d.cut >= 0 {
			d.cut -= int64(n)
		}
		return n, err
	}
	n, _ := d.ResponseWriter.Write(p[:d.cut])
	if flusher, ok := d.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
	d.stats.DiskBytes.Add(int64(n))
	d.stats.Dropped.Add(1)
	log.Printf("dropped a connection in a body of %s bytes", d.Header().Get("Content-Length"))
	panic(http.ErrAbortHandler)
}
