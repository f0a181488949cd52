// The parts of Kubernetes' own test image that the tests use, without the rest: every container has a copy of its image, so
// that its size counts.
//
//	agnhost pause                      does nothing until it is told to end, and reaps what is left to it
//	agnhost netexec --http-port=PORT   answers over HTTP, UDP and SCTP: /hostname, /clientip, /echo, /dial, /shell
//	agnhost connect HOST:PORT          opens a TCP connection and says how it ended
//
// Sources: test/images/agnhost/agnhost.go of k8s.io/kubernetes.
package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/kubernetes/test/images/agnhost/connect"
	"k8s.io/kubernetes/test/images/agnhost/netexec"
	"k8s.io/kubernetes/test/images/agnhost/pause"
)

func main() {
	root := &cobra.Command{Use: "agnhost"}
	root.AddCommand(pause.CmdPause, netexec.CmdNetexec, connect.CmdConnect)
	if root.Execute() != nil {
		os.Exit(1)
	}
}
