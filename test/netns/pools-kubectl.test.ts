/** Pools under kubectl on the lab's API server; test/kubernetes/pools.test.ts asks Kubernetes' own the same. */
import { ApiUnderTest } from './api-under-test.ts'
import { poolSuite } from './pool-suite.ts'

const api = new ApiUnderTest()
poolSuite((args, input) => api.run([...args], input))
