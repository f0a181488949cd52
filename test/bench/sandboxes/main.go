// A client of the container runtime interface for the bench pod-start and the test of CRI-O: starts and removes sandboxes
// as a kubelet would and says how long each took, from the request until its IP address is known.
//
//	sandboxes SOCKET
//	  start NAMES HANDLER [CONFIG]   starts the sandboxes NAMES (joined by commas) at once; HANDLER is the runtime's, `-` its
//	                                 default; CONFIG is JSON of a PodSandboxConfig, laid over that of each
//	  status NAMES                   what the runtime says of them now
//	  remove NAMES                   stops and removes them, ten at once
//
// Each line is answered by one line of JSON. A runtime that is not there yet, or again, is waited for.
//
// Sources: k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const requestTimeout = 60 * time.Second

type sandbox struct {
	Name         string   `json:"name"`
	IP           string   `json:"ip"`
	FurtherIPs   []string `json:"furtherIps,omitempty"`
	State        string   `json:"state"`
	Microseconds int64    `json:"microseconds,omitempty"`
	id           string
}

type client struct {
	runtime cri.RuntimeServiceClient
	started map[string]*sandbox
}

func (c *client) status(ctx context.Context, name, id string) (*sandbox, error) {
	answer, err := c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		return nil, err
	}
	network := answer.Status.Network
	pod := &sandbox{Name: name, IP: network.GetIp(), State: answer.Status.State.String(), id: id}
	for _, further := range network.GetAdditionalIps() {
		pod.FurtherIPs = append(pod.FurtherIPs, further.Ip)
	}
	return pod, nil
}

func (c *client) start(name, handler, overlay string) (*sandbox, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		Hostname: name,
		Linux:    &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{}},
	}
	if err := json.Unmarshal([]byte(overlay), config); err != nil {
		return nil, err
	}
	begin := time.Now()
	run, err := c.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	pod, err := c.status(ctx, name, run.PodSandboxId)
	if err != nil {
		return nil, err
	}
	pod.Microseconds = time.Since(begin).Microseconds()
	return pod, nil
}

func (c *client) remove(name string) error {
	pod, known := c.started[name]
	if !known {
		return errors.New("not started here")
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if _, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.id}); err != nil {
		return err
	}
	_, err := c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.id})
	return err
}

// Runs the work for every name, at most `limit` at a time, and returns the first error.
func each(names []string, limit int, work func(name string) error) error {
	var group sync.WaitGroup
	var once sync.Once
	var first error
	turns := make(chan struct{}, limit)
	for _, name := range names {
		group.Add(1)
		turns <- struct{}{}
		go func() {
			defer func() { <-turns; group.Done() }()
			if err := work(name); err != nil {
				once.Do(func() { first = fmt.Errorf("%s: %w", name, err) })
			}
		}()
	}
	group.Wait()
	return first
}

func (c *client) startAll(names []string, handler, overlay string) (any, error) {
	var mutex sync.Mutex
	pods := []*sandbox{}
	begin := time.Now()
	err := each(names, len(names), func(name string) error {
		pod, err := c.start(name, handler, overlay)
		if err != nil {
			return err
		}
		mutex.Lock()
		defer mutex.Unlock()
		c.started[name] = pod
		pods = append(pods, pod)
		return nil
	})
	return map[string]any{"microseconds": time.Since(begin).Microseconds(), "pods": pods}, err
}

func (c *client) removeAll(names []string) (any, error) {
	err := each(names, 10, c.remove)
	if err == nil {
		for _, name := range names {
			delete(c.started, name)
		}
	}
	return map[string]any{}, err
}

func (c *client) statusAll(names []string) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	pods := []*sandbox{}
	for _, name := range names {
		pod, known := c.started[name]
		if !known {
			return nil, fmt.Errorf("%s: not started here", name)
		}
		pod, err := c.status(ctx, name, pod.id)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		pods = append(pods, pod)
	}
	return map[string]any{"pods": pods}, nil
}

func (c *client) answer(line string) (any, error) {
	words := append(strings.SplitN(line, " ", 4), "{}")
	switch words[0] {
	case "start":
		return c.startAll(strings.Split(words[1], ","), strings.TrimPrefix(words[2], "-"), words[3])
	case "status":
		return c.statusAll(strings.Split(words[1], ","))
	case "remove":
		return c.removeAll(strings.Split(words[1], ","))
	}
	return nil, fmt.Errorf("unknown word %q", words[0])
}

func main() {
	connection, err := grpc.NewClient(
		"unix://"+os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	c := &client{runtime: cri.NewRuntimeServiceClient(connection), started: map[string]*sandbox{}}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		answer, err := c.answer(lines.Text())
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		text, _ := json.Marshal(answer)
		fmt.Println(string(text))
	}
}
