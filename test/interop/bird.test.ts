import { bird } from './daemons.ts'
import { testSpeaker } from './suite.ts'

testSpeaker(bird)
