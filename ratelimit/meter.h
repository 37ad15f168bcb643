/* The two meters of an account. One unit of the first is one accepted envelope recipient (To, Cc
 * and Bcc alike), one unit of the second one accepted message; they are counted, limited and shown
 * apart everywhere. */
#ifndef RATELIMIT_METER_H
#define RATELIMIT_METER_H

enum meter { METER_RECIPIENTS, METER_MESSAGES, METERS };

#endif
