// vclab is the vCenter or ESXi host of the end-to-end tests: VMware's simulator with an inventory of ours, and before it a
// TLS front that makes its replies those of the real server and serves the datastores' files. See README.md.
package main

import (
	"context"
	"crypto/sha1" // VDDK's thumbprints are SHA-1
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	log.SetPrefix("vclab: ")
	file := flag.String("config", "", "JSON configuration `file`")
	verbose := flag.Bool("v", false, "log requests and SOAP bodies (without passwords) to standard error")
	flag.Parse()
	if *file == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*file, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "vclab:", err)
		os.Exit(1)
	}
}

func run(file string, verbose bool) error {
	config, err := readConfig(file)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(config.Certificate, config.Key)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "vclab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	if !verbose {
		log.SetOutput(io.Discard) // the simulator's own chatter
	}
	inv, err := buildInventory(ctx, config, scratch)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return err
	}
	counted := &stats{}
	server := &http.Server{
		Handler:           handler(config, inv.service, counted, verbose),
		ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{
			Certificates:                []tls.Certificate{pair},
			MinVersion:                  tls.VersionTLS12,
			DynamicRecordSizingDisabled: true, // large records from the start: disks are what most of the bytes are
		},
		// The real server speaks HTTP/1.1 here.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.Default(),
	}
	failed := make(chan error, 1)
	refusing := &refusingListener{Listener: listener, faults: &config.Faults, stats: counted}
	go func() { failed <- server.ServeTLS(refusing, "", "") }()
	counters, err := serveStats(listener.Addr(), counted)
	if err != nil {
		return err
	}
	if err := ready(listener.Addr(), counters, pair); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

// reach is the host and port by which clients on this machine reach a listener.
func reach(address net.Addr) (string, int, error) {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return "", 0, errors.New("not a TCP address")
	}
	if tcp.IP.IsUnspecified() {
		return "127.0.0.1", tcp.Port, nil
	}
	return tcp.IP.String(), tcp.Port, nil
}

// serveStats serves the counters beside the server, where no fault happens, and says where.
func serveStats(server net.Addr, counted *stats) (string, error) {
	host, _, err := reach(server)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.Handle(statsPath, counted)
	go func() { _ = http.Serve(listener, mux) }() // until the program ends
	return "http://" + listener.Addr().String() + statsPath, nil
}

// ready tells the caller, in one line of JSON, where the server and its counters are and what VDDK calls its thumbprint.
func ready(address net.Addr, counters string, pair tls.Certificate) error {
	host, port, err := reach(address)
	if err != nil {
		return err
	}
	var thumbprint []string
	for _, b := range sha1.Sum(pair.Certificate[0]) {
		thumbprint = append(thumbprint, fmt.Sprintf("%02X", b))
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		URL        string `json:"url"`
		Port       int    `json:"port"`
		Thumbprint string `json:"thumbprint"`
		Stats      string `json:"stats"`
	}{
		"https://" + net.JoinHostPort(host, fmt.Sprint(port)),
		port,
		strings.Join(thumbprint, ":"),
		counters,
	})
}

func handler(config *Config, service *simulator.Service, counted *stats, verbose bool) http.Handler {
	live := newSessions(config, counted)
	soap := &soapHandler{service: service, sessions: live, stats: counted, endAt: config.Faults.EndSessionAt, verbose: verbose}
	mux := http.NewServeMux()
	mux.Handle("/sdk", soap)
	mux.Handle("/sdk/vimService", soap)
	mux.HandleFunc("/sdk/vimServiceVersions.xml", service.ServiceVersions)
	folder := &folderHandler{config: config, sessions: live, stats: counted}
	latency := time.Duration(config.Faults.LatencyMS) * time.Millisecond
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(latency)
		if verbose {
			uri, piece := r.RequestURI, r.Header.Get("Range")
			noted := &notedStatus{ResponseWriter: w, status: http.StatusOK}
			defer func() { log.Printf("%d %s %s %s", noted.status, r.Method, uri, piece) }()
			w = noted
		}
		// Not through the mux, which redirects names with // and .. instead of answering.
		if strings.HasPrefix(r.URL.Path, "/folder/") {
			folder.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// notedStatus remembers the status of a reply for the log.
type notedStatus struct {
	http.ResponseWriter
	status int
}

func (n *notedStatus) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap is how the standard library finds the writer's other methods.
func (n *notedStatus) Unwrap() http.ResponseWriter { return n.ResponseWriter }

// Flush sends what the server still holds back.
func (n *notedStatus) Flush() {
	if flusher, ok := n.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}
