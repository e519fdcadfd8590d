/**
 * Models for text.
 *
 * @module
 */
export {
  BertAttention,
  type BertConfig,
  bertConfig,
  BertEmbeddings,
  BertEncoder,
  type BertInputs,
  BertIntermediate,
  BertLayer,
  BertModel,
  BertOutput,
  type BertOutputs,
  BertPooler,
  BertSelfAttention,
  BertSelfOutput,
  type BertSettings,
  bertStateDict,
} from "./models/bert.ts";
