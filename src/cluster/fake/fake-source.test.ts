import { Cidr } from '../../net/cidr.ts'
import { testSource } from '../source-suite.ts'
import { FakeCluster } from './fake-source.ts'

testSource(
  'fake',
  async () => {
    const cluster = new FakeCluster()
    for (const n of [1, 2])
      cluster.putNode({ name: `n${n}`, addresses: [], podCidrs: [Cidr.parse(`10.244.${n}.0/24`)] })
    return {
      source: (name) => cluster.source(name),
      putNetwork: (text) => cluster.putNetwork(text),
      removeNode: (name) => cluster.removeNode(name),
      setUp: (up) => cluster.setUp(up),
      close: () => {},
    }
  },
  { hasCalico: true },
)
